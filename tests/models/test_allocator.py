"""Whether large blocks are used again instead of being mapped anew."""

import os
import subprocess
import sys

import pytest

from models.allocator import _is_glibc, memory_kept

pytestmark = pytest.mark.skipif(not _is_glibc(), reason="only glibc is told")

_FAULTS = """
import ctypes, resource, threading
from models.allocator import keep_memory
keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def use():
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
size = 100 * 2**20
def measure():
    use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=measure)
thread.start()
thread.join()
"""


def faults(**environment: str) -> int:
    """Pages that had to be mapped when a thread used 100 MiB for the second time."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", _FAULTS]
    return int(subprocess.run(command, check=True, capture_output=True, env=inherited | environment).stdout)


def test_a_block_is_used_again_without_mapping_its_pages_anew() -> None:
    assert faults() < 100


def test_who_chooses_in_the_environment_gets_what_they_chose() -> None:
    assert faults(MALLOC_TRIM_THRESHOLD_="131072") > 1000 or faults(MALLOC_MMAP_THRESHOLD_="131072") > 1000


def test_a_process_to_be_started_is_told_the_same_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))]:
        monkeypatch.delenv(name)
    told = memory_kept()
    assert faults(**told) < 100
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert memory_kept() == {}
