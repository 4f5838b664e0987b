"""glibc told to keep the memory that a batch has used for the next one.

By default it gives large blocks back to the system at once, and a network's layers are nothing else: every batch waits
for its pages to be mapped and zeroed again, a quarter of a core's time with ResNet-18 (benchmarks/README.md). Arenas
of single threads cannot hold such blocks, so there is one for all. The C library of other systems is left as it is.
"""

import ctypes
import os

# By their names in the environment: the parameters of malloc.h, and bytes. Blocks of layers are kept, that is; the
# largest tensors of an artifact still go back when it is dropped.
_SETTINGS = {
    "MALLOC_ARENA_MAX": (-8, 1),
    "MALLOC_MMAP_THRESHOLD_": (-3, 2**28),
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**30),
}
_CHOSEN = (*_SETTINGS, "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_memory() -> None:
    """To be called before there are threads. Nothing happens if the environment has chosen how to allocate."""
    if not _is_to_be_told():
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in _SETTINGS.values():
        mallopt(parameter, value)


def memory_kept() -> dict[str, str]:
    """What makes a process that is yet to be started keep its memory so: for its environment, none if it has chosen."""
    return {name: str(value) for name, (_, value) in _SETTINGS.items()} if _is_to_be_told() else {}


def _is_to_be_told() -> bool:
    return not any(name in os.environ for name in _CHOSEN) and _is_glibc()


def _is_glibc() -> bool:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") is not None
    except (AttributeError, OSError, ValueError):  # Windows has none, other systems do not know the name
        return False
