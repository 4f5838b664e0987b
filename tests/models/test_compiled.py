"""What holds for all compiled loops: numbers, threads, and a cache that may be lost, damaged or out of reach."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.compiled import can_run, compiled, narrow, numbers, run, wide
from models.cores import compute_with

SCORE = """
import torch
from models.compact_gaussian import CompactGaussian, CompactGaussianConfig
config = CompactGaussianConfig(dimensions=6, rank=2, shrinkage=0.1, pooling=3)
scorer = CompactGaussian(config, (2, 2, 2), ((4, 4), (2, 2), (1, 1)))
for each in scorer.whitenings:
    each.fill_(1)
ready = scorer.compute_in(torch.bfloat16, torch.device("cpu"))
levels = [torch.ones(1, 2, edge, edge, dtype=torch.bfloat16) for edge in (4, 2, 1)]
print(ready.layout, round(float(ready(levels).mean()), 1))
"""


@compiled
def _there_and_back(given: Any, found: Any) -> None:
    for i in range(len(given)):
        found[i] = narrow(wide(given[i]), found)


def rounded(x: torch.Tensor) -> torch.Tensor:
    found = torch.empty(len(x), dtype=torch.bfloat16)
    _there_and_back(x.numpy(), numbers(found))
    return found


def test_float32_is_rounded_to_bfloat16_as_torch_does_it() -> None:
    bits = torch.randint(-(2**31), 2**31 - 1, (100_000,), generator=torch.Generator().manual_seed(0))
    halfway = (torch.arange(0, 2**15, 7) << 16) + 0x8000
    drawn = torch.cat([bits, halfway, -halfway]).to(torch.int32).view(torch.float32)
    torch.testing.assert_close(rounded(drawn), drawn.bfloat16(), rtol=0, atol=0, equal_nan=True)


def test_what_is_not_a_number_is_none_in_bfloat16_whatever_its_bits() -> None:
    bits = torch.tensor([0x7F800001, 0x7FFFFFFF, -1, -0x007FFFFF], dtype=torch.int32)
    assert bits.view(torch.float32).isnan().all()
    assert rounded(bits.view(torch.float32)).isnan().all()


def test_bfloat16_comes_through_unchanged() -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    found = torch.empty_like(every)
    _there_and_back(numbers(every), numbers(found))
    torch.testing.assert_close(found, every, rtol=0, atol=0, equal_nan=True)


def test_an_array_lies_on_the_tensor_s_memory() -> None:
    tensor = torch.zeros(3, dtype=torch.bfloat16)
    array = numbers(tensor)
    assert array.dtype == np.uint16
    array[1] = 0x3F80
    assert tensor.tolist() == [0, 1, 0]


def test_torch_keeps_its_number_of_threads() -> None:
    before = torch.get_num_threads()
    try:
        compute_with(2)
        assert can_run()
        run(lambda: None)
        assert torch.get_num_threads() == 2
    finally:
        compute_with(before)


def score(cache: Path, *, before: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-c", before + SCORE], env=environment, capture_output=True, text=True, timeout=300, check=True
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A cache after a first process, and what that printed."""
    cache = tmp_path_factory.mktemp("cache")
    return cache, score(cache).stdout


def test_a_second_process_finds_the_code_of_the_first(filled: tuple[Path, str]) -> None:
    cache, said = filled
    assert said.startswith("interleaved ")
    before = {file: file.stat().st_mtime_ns for file in cache.rglob("*.nb?")}
    assert before
    assert score(cache).stdout == said
    assert {file: file.stat().st_mtime_ns for file in cache.rglob("*.nb?")} == before


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_a_damaged_cache_is_made_anew(filled: tuple[Path, str], kind: str) -> None:
    cache, said = filled
    for file in cache.rglob(f"*.{kind}"):
        file.write_bytes(file.read_bytes()[:10])  # as after a power cut
    damaged = score(cache)
    assert damaged.stdout == said
    assert "numba's cache cannot be used" in damaged.stderr
    score(cache)  # fills it
    healed = score(cache)
    assert healed.stdout == said
    assert "cache" not in healed.stderr


def test_without_a_folder_for_it_the_code_is_compiled_all_the_same(filled: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert score(tmp_path / "file" / "folder").stdout == filled[1]


def test_without_openmp_torch_s_operators_do_the_work(filled: tuple[Path, str]) -> None:
    cache, said = filled
    found = score(cache, before='import sys; sys.modules["numba.np.ufunc.omppool"] = None\n')
    assert found.stdout == said.replace("interleaved", "unit")
    assert "slower" in found.stderr
