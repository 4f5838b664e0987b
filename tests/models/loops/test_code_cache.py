"""Compiled code is kept between processes, and read only if it is as it was written."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Python = Callable[..., subprocess.CompletedProcess[str]]

FULL_DISK = """
import os
before, replace = os.replace, os.replace
def full(source, target):
    if str(target).endswith(".nbc"):
        raise OSError(28, "No space left on device")
    return before(source, target)
os.replace = full
"""


@pytest.fixture(scope="module")
def filled(python: Python, score: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A cache after a first process, and what that printed."""
    cache = tmp_path_factory.mktemp("cache")
    return cache, python(score, NUMBA_CACHE_DIR=str(cache)).stdout


def times(cache: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in cache.rglob("*") if file.is_file()}


def test_a_second_process_finds_the_code_of_the_first(python: Python, score: str, filled: tuple[Path, str]) -> None:
    cache, said = filled
    assert said.startswith("interleaved ")
    before = times(cache)
    assert any(file.suffix == ".nbc" for file in before)
    assert python(score, NUMBA_CACHE_DIR=str(cache)).stdout == said
    assert times(cache) == before


def test_what_is_not_as_it_was_written_is_compiled_anew(
    python: Python, score: str, filled: tuple[Path, str], tmp_path: Path
) -> None:
    cache, said = shutil.copytree(filled[0], tmp_path / "cache"), filled[1]
    damaged = sorted(cache.rglob("*.nb?"))
    for file in damaged:
        code = bytearray(file.read_bytes())
        code[len(code) // 2 :] = bytes(len(code) - len(code) // 2)  # pages that a power cut has left empty
        file.write_bytes(code)
    before = times(cache)
    assert python(score, NUMBA_CACHE_DIR=str(cache)).stdout == said
    after = times(cache)
    assert all(after[file] != before[file] for file in damaged)
    assert python(score, NUMBA_CACHE_DIR=str(cache)).stdout == said
    assert times(cache) == after


def test_what_nobody_has_vouched_for_is_not_read(
    python: Python, score: str, filled: tuple[Path, str], tmp_path: Path
) -> None:
    cache, said = shutil.copytree(filled[0], tmp_path / "cache"), filled[1]
    (digests,) = cache.rglob("digests.json")
    digests.write_text("[")
    before = times(cache)
    assert python(score, NUMBA_CACHE_DIR=str(cache)).stdout == said
    assert all(after != before[file] for file, after in times(cache).items())


def test_other_sources_have_another_folder(
    python: Python, score: str, filled: tuple[Path, str], tmp_path: Path
) -> None:
    cache, said = shutil.copytree(filled[0], tmp_path / "cache"), filled[1]
    (kept,) = cache.iterdir()
    tree = shutil.copytree(Path(__file__).parents[3] / "models", tmp_path / "changed" / "models")
    helper = tree / "loops" / "bfloat16.py"
    helper.write_text(helper.read_text() + "# changed\n")
    changed = python(score, tree=tree.parent, NUMBA_CACHE_DIR=str(cache))
    assert changed.stdout == said
    assert {kept} < set(cache.iterdir())


def test_where_nothing_can_be_written_each_process_compiles_for_itself(
    python: Python, score: str, filled: tuple[Path, str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    found = python(score, NUMBA_CACHE_DIR=str(tmp_path / "file" / "folder"))
    assert found.stdout == filled[1]
    assert "cannot be kept" in found.stderr


def test_a_disk_that_is_full_meanwhile_is_no_obstacle(
    python: Python, score: str, filled: tuple[Path, str], tmp_path: Path
) -> None:
    found = python(score, before=FULL_DISK, NUMBA_CACHE_DIR=str(tmp_path))
    assert found.stdout == filled[1]
    assert "cannot be kept" in found.stderr
    assert not list(tmp_path.rglob("*.nbc"))
