"""glibc told to keep the memory that a batch has used for the next one.

By default it gives large blocks back to the system at once, and a network's layers are nothing else: every batch waits
for its pages to be mapped and zeroed again, a quarter of a core's time with ResNet-18 (benchmarks/README.md). Arenas
of single threads cannot hold such blocks, so there is one for all: not for a fit, whose threads would wait for it. The
C library of other systems is left as it is.
"""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
# Bytes. Blocks of layers, that is; the largest tensors of an artifact still go back when it is dropped.
_OWN_MAPPING = 2**28
_KEPT = 2**30
_CHOSEN = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_memory() -> None:
    """To be called before there are threads. Nothing happens if the environment has chosen how to allocate."""
    if any(name in os.environ for name in _CHOSEN) or not _is_glibc():
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_THRESHOLD, _OWN_MAPPING)
    mallopt(_TRIM_THRESHOLD, _KEPT)


def _is_glibc() -> bool:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") is not None
    except (AttributeError, OSError, ValueError):  # Windows has none, other systems do not know the name
        return False
