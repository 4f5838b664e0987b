"""Pooling, centring and rounding of a level on CPUs in one pass: what `models.compact_gaussian` multiplies by W.

As `models.pooling.pooled`, less the mean, and in float32 until the very last: a difference from the mean is small, and
rounded before it is taken it would have few digits left.
"""

from typing import Any

import numba
import numpy as np
import torch
from numpy import float32
from torch import Tensor

from models.loops.bfloat16 import narrow, numbers, wide
from models.loops.compiled import compiled, compiled_side_by_side, run


def centred(level: Tensor, mean: Tensor, *, kernel: int) -> Tensor:
    """Level (b, c, h, w), channels last in memory -> (b, h, w, c) of its type, float32 or bfloat16.

    Each value is the mean of those `kernel` x `kernel` neighbours that exist, less `mean` (h, w, c) float32. Raises
    ValueError where level and mean are not of one shape.
    """
    lying = level.permute(0, 2, 3, 1).contiguous()
    if lying.shape[1:] != mean.shape:  # which no loop would notice
        raise ValueError(f"a level of shape {tuple(lying.shape[1:])} has no mean of shape {tuple(mean.shape)}")
    found = torch.empty_like(lying)
    rounds = lying.shape[0] * lying.shape[1]
    run(_rows, numbers(lying), mean.numpy(), kernel // 2, numbers(found), rounds=rounds)
    return found


@compiled_side_by_side
def _rows(level: Any, mean: Any, reach: Any, found: Any, done: Any) -> None:
    height = level.shape[1]
    for row in numba.prange(len(done)):
        _row(level, mean, reach, np.int64(row) // height, np.int64(row) % height, found)
        done[row] = True


@compiled
def _row(level: Any, mean: Any, reach: Any, j: Any, y: Any, found: Any) -> None:
    """Row y of picture j."""
    height, width, channels = level.shape[1:]
    top, bottom = max(y - reach, 0), min(y + reach + 1, height)
    above = np.empty((width, channels), float32)  # sums over the rows
    for x in range(width):
        for i in range(channels):
            above[x, i] = wide(level[j, top, x, i])
        for row in range(top + 1, bottom):
            for i in range(channels):
                above[x, i] += wide(level[j, row, x, i])
    total = np.empty(channels, float32)
    for x in range(width):
        left, right = max(x - reach, 0), min(x + reach + 1, width)
        share = float32(1) / float32((bottom - top) * (right - left))
        for i in range(channels):
            total[i] = above[left, i]
        for column in range(left + 1, right):
            for i in range(channels):
                total[i] += above[column, i]
        for i in range(channels):
            found[j, y, x, i] = narrow(total[i] * share - mean[y, x, i], found)
