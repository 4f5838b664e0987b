"""Compiled code is kept between processes, and read only if it is as it was written."""

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

Python = Callable[..., subprocess.CompletedProcess[str]]

FULL_DISK = """
import os
before = os.replace
def full(source, target):
    if str(target).endswith(".nbc"):
        raise OSError(28, "No space left on device")
    return before(source, target)
os.replace = full
"""
IMPATIENT = """
from models.loops import code_cache
code_cache._PATIENCE = 3.0
"""
READY = """
import torch
from models.loops.ready import ready_for
assert ready_for(getattr(torch, "{}"))
"""
START = """
import torch
from pathlib import Path
from service.registry.registry import open_registry
class Nothing:
    def __getattr__(self, name):
        return lambda *_, **__: {}
open_registry(Path("."), device=torch.device("cpu"), artifacts=Nothing())
"""


@pytest.fixture(scope="module")
def filled(python: Python, small: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A cache after a first process, and what that printed."""
    cache = tmp_path_factory.mktemp("cache")
    return cache, python(small, NUMBA_CACHE_DIR=str(cache)).stdout


@pytest.fixture
def own(filled: tuple[Path, str], tmp_path: Path) -> tuple[Path, Path, str]:
    """A copy of that cache, the folder in it, and what the process printed."""
    cache = shutil.copytree(filled[0], tmp_path / "cache")
    (kept,) = folders(cache)
    return cache, kept, filled[1]


def times(cache: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in cache.rglob("*") if file.is_file()}


def folders(cache: Path) -> set[Path]:
    return {each for each in cache.iterdir() if each.is_dir()}


def test_a_second_process_finds_the_code_of_the_first(python: Python, small: str, filled: tuple[Path, str]) -> None:
    cache, said = filled
    assert said == "True [2.0]\n"
    before = times(cache)
    assert any(file.suffix == ".nbc" for file in before)
    assert python(small, NUMBA_CACHE_DIR=str(cache)).stdout == said
    assert times(cache) == before


def test_what_is_not_as_it_was_written_is_compiled_anew(
    python: Python, small: str, own: tuple[Path, Path, str]
) -> None:
    cache, _, said = own
    damaged = sorted(cache.rglob("*.nb?"))
    for file in damaged:
        code = bytearray(file.read_bytes())
        code[len(code) // 2 :] = bytes(len(code) - len(code) // 2)  # pages that a power cut has left empty
        file.write_bytes(code)
    before = times(cache)
    found = python(small, NUMBA_CACHE_DIR=str(cache))
    assert found.stdout == said
    assert "not as they were written" in found.stderr
    after = times(cache)
    assert all(after[file] != before[file] for file in damaged)
    assert python(small, NUMBA_CACHE_DIR=str(cache)).stdout == said
    assert times(cache) == after


def test_what_nobody_has_vouched_for_is_not_read(python: Python, small: str, own: tuple[Path, Path, str]) -> None:
    cache, kept, said = own
    (kept / "digests.json").write_text("[")
    before = times(cache)
    assert python(small, NUMBA_CACHE_DIR=str(cache)).stdout == said
    assert all(times(cache)[file] != before[file] for file in kept.rglob("*.nb?"))


def test_other_sources_have_another_folder(
    python: Python, small: str, own: tuple[Path, Path, str], tmp_path: Path
) -> None:
    cache, kept, said = own
    tree = shutil.copytree(Path(__file__).parents[3] / "models", tmp_path / "changed" / "models")
    helper = tree / "loops" / "bfloat16.py"
    helper.write_text(helper.read_text() + "# changed\n")
    changed = python(small, tree=tree.parent, NUMBA_CACHE_DIR=str(cache))
    assert changed.stdout == said
    assert {kept} < folders(cache)


def test_where_nothing_can_be_written_each_process_compiles_for_itself(
    python: Python, small: str, filled: tuple[Path, str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    found = python(small, NUMBA_CACHE_DIR=str(tmp_path / "file" / "folder"))
    assert found.stdout == filled[1]
    assert "cannot be kept" in found.stderr


def test_a_disk_that_is_full_meanwhile_is_no_obstacle(
    python: Python, small: str, filled: tuple[Path, str], tmp_path: Path
) -> None:
    found = python(small, before=FULL_DISK, NUMBA_CACHE_DIR=str(tmp_path))
    assert found.stdout == filled[1]
    assert "cannot be kept" in found.stderr
    assert not list(tmp_path.rglob("*.nbc"))


def test_processes_that_start_together_do_not_get_into_each_other_s_way(python: Python, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        types = ("bfloat16", "float32", "bfloat16")
        found = list(pool.map(lambda each: python(READY.format(each), NUMBA_CACHE_DIR=str(tmp_path)), types))
    assert not any("anew" in each.stderr or "cannot" in each.stderr for each in found)
    before = times(tmp_path)
    for each in types:
        python(READY.format(each), NUMBA_CACHE_DIR=str(tmp_path))
    assert times(tmp_path) == before


@pytest.mark.parametrize("opened", ["inside", "around"])
def test_a_folder_that_others_may_write_to_is_not_used(
    python: Python, small: str, own: tuple[Path, Path, str], opened: str
) -> None:
    cache, kept, said = own
    (kept if opened == "inside" else cache).chmod(0o777)
    before = times(cache)
    found = python(small, NUMBA_CACHE_DIR=str(cache))
    assert found.stdout == said
    assert "others may write" in found.stderr
    assert times(cache) == before


def test_a_link_is_not_followed_and_nothing_of_others_is_deleted(
    python: Python, small: str, own: tuple[Path, Path, str], tmp_path: Path
) -> None:
    cache, kept, said = own
    (kept / "letter.txt").write_text("mine")
    kept.rename(tmp_path / "elsewhere")
    kept.symlink_to(tmp_path / "elsewhere")
    before = times(tmp_path / "elsewhere")
    found = python(small, NUMBA_CACHE_DIR=str(cache))
    assert found.stdout == said
    assert "is a link" in found.stderr
    assert times(tmp_path / "elsewhere") == before
    kept.unlink()
    (tmp_path / "elsewhere").rename(kept)
    (kept / "digests.json").unlink()  # so that all that was compiled goes
    assert python(small, NUMBA_CACHE_DIR=str(cache)).stdout == said
    assert (kept / "letter.txt").read_text() == "mine"


def test_nobody_waits_for_ever_for_a_process_that_compiles(
    python: Python, small: str, filled: tuple[Path, str]
) -> None:
    cache, said = filled
    (kept,) = folders(cache)
    with FileLock(kept / "lock"):
        found = python(small, before=IMPATIENT, NUMBA_CACHE_DIR=str(cache))
    assert found.stdout == said
    assert "waiting for a process" in found.stderr
    assert "cannot be kept" in found.stderr


def test_a_service_compiles_before_it_is_asked(python: Python, tmp_path: Path) -> None:
    python(START, NUMBA_CACHE_DIR=str(tmp_path))
    assert list(tmp_path.rglob("*.nbc"))
