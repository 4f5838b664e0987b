"""Large arrays that nobody else sees: on disk, so that memory does not grow with the number of pictures.

Those that are small beside the memory that is left are in memory: what is mapped to a file the system begins to write
after half a minute, though nobody will ever read it there.
"""

import errno
import math
import mmap
import os
import tempfile
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from models.errors import RecipeError
from models.memory import available_memory

_SHARE = 0.125  # of the memory that is left
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def scratch(shape: tuple[int, ...], dtype: DTypeLike, *, folder: Path) -> NDArray[Any]:
    """An array of zeros: in memory where all such arrays take a small share of what is left, else in a file.

    The file lies in `folder`, has no name and is gone with the array. Raises RecipeError where there is no room for it.
    """
    count = math.prod(shape)
    size = max(1, count * np.dtype(dtype).itemsize)
    mapped = _in_memory(size) or _in_file(size, folder)
    return np.frombuffer(mapped, dtype, count=count).reshape(shape)


class _Lent:
    """Bytes of memory that arrays of this process have: the system does not count what nobody has written to yet."""

    def __init__(self) -> None:
        self._lock, self._bytes = threading.RLock(), 0  # arrays may be collected in the middle of `take`

    def take(self, size: int) -> bool:
        """Whether there is room for so many more."""
        with self._lock:
            if self._bytes + size > _SHARE * available_memory():
                return False
            self._bytes += size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._bytes -= size


_lent = _Lent()


def _in_memory(size: int) -> mmap.mmap | None:
    """None where that would be too much, or is refused."""
    if not _lent.take(size):
        return None
    try:
        mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        _lent.give_back(size)
        return None
    weakref.finalize(mapped, _lent.give_back, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # of Linux: hundreds of pages are made at once
        with suppress(OSError):
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return mapped


def _in_file(size: int, folder: Path) -> mmap.mmap:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # really there: a full disk would end in a bus error
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RecipeError(
                f"Nothing can be written to {folder} ({error.strerror}). Give another folder with --artifacts."
            ) from error
        raise RecipeError(
            f"There is no room for {_spoken(size)} of pictures or features in {folder} ({error.strerror}). Make "
            "some, give another folder with --artifacts, or use fewer pictures."
        ) from error


def scratch_tensor(shape: tuple[int, ...], dtype: torch.dtype, *, folder: Path) -> Tensor:
    """The same as a tensor. Of bytes at first: numpy knows no bfloat16."""
    raw: NDArray[np.int8] = scratch((math.prod(shape) * dtype.itemsize,), np.int8, folder=folder)
    return torch.from_numpy(raw).view(dtype).view(shape)


def _spoken(size: int) -> str:
    """A number of bytes in the largest unit of which there is a tenth."""
    unit, name = next(((unit, name) for unit, name in _UNITS if size >= unit / 10), _UNITS[-1])
    return f"{size / unit:.1f} {name}"
