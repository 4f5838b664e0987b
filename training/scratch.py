"""Large arrays on disk that nobody else sees, so that memory does not grow with the number of pictures."""

import errno
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from models.errors import RecipeError

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def scratch(shape: tuple[int, ...], dtype: DTypeLike, *, folder: Path) -> NDArray[Any]:
    """An array of zeros, mapped to a file in `folder` that has no name and is gone with the array.

    Raises RecipeError where there is no room for it.
    """
    size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # really there: a full disk would end in a bus error
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape)
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
    """The same as a tensor. Of bytes at first: numpy, which maps the file, knows no bfloat16."""
    raw: NDArray[np.int8] = scratch((math.prod(shape) * dtype.itemsize,), np.int8, folder=folder)
    return torch.from_numpy(raw).view(dtype).view(shape)


def _spoken(size: int) -> str:
    """A number of bytes in the largest unit of which there is a tenth."""
    unit, name = next(((unit, name) for unit, name in _UNITS if size >= unit / 10), _UNITS[-1])
    return f"{size / unit:.1f} {name}"
