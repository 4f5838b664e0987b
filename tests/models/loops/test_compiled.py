"""What holds for all compiled loops: threads, what goes wrong in one, and processors that nothing is compiled for."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from models.loops.compiled import compiled, compiled_side_by_side, run, warm_up

Python = Callable[..., subprocess.CompletedProcess[str]]

THREADS = """
import threading, torch
torch.set_num_threads(2)
from models.loops.one_pass import distances, interleaved
from models.loops.ready import ready_for
assert ready_for(torch.float32)
assert torch.get_num_threads() == 2
parts = [torch.ones(1, edge, edge, 1) for edge in (64, 32, 16)]
kept = interleaved(torch.zeros(64 * 64, 1, 1, dtype=torch.int8), torch.zeros(64 * 64, 1))
def ask():
    torch.set_num_threads(2)
    for _ in range(100):
        assert float(distances(parts, *kept, shrinkage=1.0).max()) == 3
    assert torch.get_num_threads() == 2
askers = [threading.Thread(target=ask) for _ in range(4)]
for asker in askers:
    asker.start()
for asker in askers:
    asker.join()
ask()
print("asked")
"""
WITHOUT_OPENMP = 'import sys; sys.modules["numba.np.ufunc.omppool"] = None\n'
WITHOUT_A_COMPILER = """
from numba.core.dispatcher import Dispatcher
def fail(*_):
    raise RuntimeError("LLVM knows no such processor")
Dispatcher.compile = fail
"""
UNREADABLE = """
from numba.core.caching import FunctionCache
load = FunctionCache.load_overload
def fail_once(cache, *arguments):
    FunctionCache.load_overload = load
    raise TypeError("code of another kind")
FunctionCache.load_overload = fail_once
"""


@compiled_side_by_side
def _fail_in_a_round(found: Any, done: Any) -> None:
    for i in numba.prange(len(done)):
        _fail_at_three(i)
        found[i] = i
        done[i] = True


@compiled
def _fail_at_three(i: Any) -> None:
    if i == 3:
        raise MemoryError


def test_what_fails_in_a_thread_is_not_lost() -> None:
    found = np.zeros(64)
    with pytest.raises(MemoryError, match="did not come to their end"):
        run(_fail_in_a_round, found, rounds=64)
    with pytest.raises(MemoryError):
        run(_fail_in_a_round, found, rounds=4)  # one round for each thread: who calls has one as well
    run(_sound, found, rounds=64)  # and the threads are as good as before
    assert (found == 1).all()


@compiled_side_by_side
def _sound(found: Any, done: Any) -> None:
    for i in numba.prange(len(done)):
        found[i] = 1
        done[i] = True


@pytest.mark.parametrize("before", ["", WITHOUT_OPENMP], ids=["openmp", "without"])
def test_threads_that_ask_at_once_are_answered_and_torch_keeps_its_number_of_threads(
    python: Python, before: str
) -> None:
    found = python(THREADS, before=before)
    assert found.stdout == "asked\n"
    assert ("OpenMP" in found.stderr) == bool(before)


def test_where_nothing_can_be_compiled_torch_s_operators_do_the_work(
    python: Python, score: str, tmp_path: Path
) -> None:
    said = python(score).stdout
    found = python(score, before=WITHOUT_A_COMPILER, NUMBA_CACHE_DIR=str(tmp_path))
    assert said.startswith("interleaved ")
    assert found.stdout == said.replace("interleaved", "unit")
    assert "cannot be compiled" in found.stderr


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept in the user's folder."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))


@pytest.mark.usefixtures("elsewhere")
def test_a_fault_that_stays_is_no_reason_to_try_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    def full() -> None:
        raise OSError("no space left on device")

    assert not warm_up(full)
    assert caplog.text.count("cannot be kept") == 1


def test_code_that_cannot_be_used_is_no_reason_to_do_without(python: Python, small: str, tmp_path: Path) -> None:
    said = python(small, NUMBA_CACHE_DIR=str(tmp_path)).stdout
    found = python(small, before=UNREADABLE, NUMBA_CACHE_DIR=str(tmp_path))
    assert found.stdout == said
    assert "are of no use" in found.stderr
    assert not python(small, NUMBA_CACHE_DIR=str(tmp_path)).stderr


@pytest.mark.usefixtures("elsewhere")
def test_memory_is_not_a_matter_of_compiling() -> None:
    def too_much() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        warm_up(too_much)
