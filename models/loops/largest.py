"""Max pooling of bfloat16 on CPUs, as whole numbers in the same order, of which a processor compares 32 at a time."""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from models.loops.bfloat16 import numbers
from models.loops.compiled import compiled, compiled_side_by_side, run

_MAGNITUDE, _INFINITY = np.int16(0x7FFF), np.int16(0x7F80)  # all bits but the sign; those of infinity


def largest(x: Tensor, *, kernel: int, stride: int, padding: int) -> Tensor:
    """What `torch.nn.functional.max_pool2d` makes of bfloat16 (b, c, h, w), channels last in memory; so is the result.

    What is not a number is larger than all numbers. Raises ValueError where x is of another type, or padded by more
    than half a kernel.
    """
    if x.dtype != torch.bfloat16:
        raise ValueError(f"this is for bfloat16, not {x.dtype}")
    if 2 * padding > kernel:  # nothing but padding would be below some of them
        raise ValueError(f"a padding of {padding} is more than half of a kernel of {kernel}")
    lying = x.permute(0, 2, 3, 1).contiguous()
    b, h, w, c = lying.shape
    height, width = ((edge + 2 * padding - kernel) // stride + 1 for edge in (h, w))
    found = torch.empty(b, height, width, c, dtype=x.dtype)
    run(_rows, numbers(lying), numbers(found), kernel, stride, padding, rounds=b * height)
    return found.permute(0, 3, 1, 2)


@compiled_side_by_side
def _rows(x: Any, found: Any, kernel: Any, stride: Any, padding: Any, done: Any) -> None:
    height = found.shape[1]
    for number in numba.prange(len(done)):
        _row(x, found, kernel, stride, padding, np.int64(number) // height, np.int64(number) % height)
        done[number] = True


@compiled
def _row(x: Any, found: Any, kernel: Any, stride: Any, padding: Any, j: Any, y: Any) -> None:
    """Row y of picture j of what is found: over the rows first."""
    top, bottom = max(y * stride - padding, 0), min(y * stride - padding + kernel, x.shape[1])
    w, c = x.shape[2:]
    above = np.empty((w, c), np.int16)
    for column in range(w):
        for i in range(c):
            above[column, i] = _rank(x[j, top, column, i])
        for row in range(top + 1, bottom):
            for i in range(c):
                above[column, i] = max(above[column, i], _rank(x[j, row, column, i]))
    most = np.empty(c, np.int16)
    for column in range(found.shape[2]):
        left, right = max(column * stride - padding, 0), min(column * stride - padding + kernel, w)
        for i in range(c):
            most[i] = above[left, i]
        for beside in range(left + 1, right):
            for i in range(c):
                most[i] = max(most[i], above[beside, i])
        for i in range(c):
            found[j, y, column, i] = _of_rank(most[i])


@compiled
def _rank(bits: Any) -> Any:
    """A bfloat16's place among all, int16."""
    signed = np.int16(bits)
    if np.int16(signed & _MAGNITUDE) > _INFINITY:
        return _MAGNITUDE
    return np.int16(signed ^ _MAGNITUDE) if signed < 0 else signed


@compiled
def _of_rank(rank: Any) -> Any:
    return np.uint16(np.int16(rank ^ _MAGNITUDE) if rank < 0 else rank)
