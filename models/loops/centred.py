"""Pooling, centring and rounding of levels on CPUs in one pass: what `models.compact_gaussian` multiplies by W.

As `models.pooling.pooled`, less the mean, and in float32 until the very last: a difference from the mean is small, and
rounded before it is taken it would have few digits left.
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from numpy import float32
from torch import Tensor

from models.loops.bfloat16 import narrow, numbers, wide
from models.loops.compiled import compiled, compiled_side_by_side, run

_USUAL = 3  # neighbours in a row, of which the sum is taken at once (docs/log.md)


def centred(levels: Sequence[Tensor], means: Sequence[Tensor], *, kernel: int) -> list[Tensor]:
    """Three levels (b, c, h, w), channels last in memory -> (b, h, w, c) each, of their type, float32 or bfloat16.

    Each value is the mean of those `kernel` x `kernel` neighbours that exist, less the level's mean (h, w, c) float32.
    Raises ValueError where a level and its mean are not of one shape, or levels are not of as many pictures.
    """
    lying = [level.permute(0, 2, 3, 1).contiguous() for level in levels]
    for level, mean in zip(lying, means, strict=True):
        if level.shape[1:] != mean.shape or len(level) != len(lying[0]):  # which no loop would notice
            shapes = f"a level of shape {tuple(level.shape)} has no mean of shape {tuple(mean.shape)}"
            raise ValueError(f"{shapes}, or is not of {len(lying[0])} pictures")
    found = [torch.empty_like(level) for level in lying]
    arrays = [*map(numbers, lying), *(mean.numpy() for mean in means), *map(numbers, found)]
    run(_rows, *arrays, kernel // 2, rounds=sum(level.shape[0] * level.shape[1] for level in lying))
    return found


@compiled_side_by_side
def _rows(
    l1: Any, l2: Any, l3: Any, m1: Any, m2: Any, m3: Any, f1: Any, f2: Any, f3: Any, reach: Any, done: Any
) -> None:
    """All rows of all pictures of all levels; a finer level has more rows, and they take as long."""
    pictures = len(l1)
    first, second = pictures * l1.shape[1], pictures * l2.shape[1]
    for number in numba.prange(len(done)):
        row = np.int64(number)
        if row < first:
            _row(l1, m1, reach, row // l1.shape[1], row % l1.shape[1], f1)
        elif row < first + second:
            _row(l2, m2, reach, (row - first) // l2.shape[1], (row - first) % l2.shape[1], f2)
        else:
            _row(l3, m3, reach, (row - first - second) // l3.shape[1], (row - first - second) % l3.shape[1], f3)
        done[number] = True


@compiled
def _row(level: Any, mean: Any, reach: Any, j: Any, y: Any, found: Any) -> None:
    """Row y of picture j."""
    height, width, channels = level.shape[1:]
    top, bottom = max(y - reach, 0), min(y + reach + 1, height)
    above = np.empty((width, channels), float32)  # sums over the rows
    for x in range(width):
        if bottom - top == _USUAL:
            for i in range(channels):
                first, second, third = level[j, top, x, i], level[j, top + 1, x, i], level[j, top + 2, x, i]
                above[x, i] = wide(first) + wide(second) + wide(third)
        else:
            for i in range(channels):
                above[x, i] = wide(level[j, top, x, i])
            for row in range(top + 1, bottom):
                for i in range(channels):
                    above[x, i] += wide(level[j, row, x, i])
    total = np.empty(channels, float32)
    for x in range(width):
        left, right = max(x - reach, 0), min(x + reach + 1, width)
        share = float32(1) / float32((bottom - top) * (right - left))
        if right - left == _USUAL:
            for i in range(channels):
                sum_ = above[left, i] + above[left + 1, i] + above[left + 2, i]
                found[j, y, x, i] = narrow(sum_ * share - mean[y, x, i], found)
        else:
            for i in range(channels):
                total[i] = above[left, i]
            for column in range(left + 1, right):
                for i in range(channels):
                    total[i] += above[column, i]
            for i in range(channels):
                found[j, y, x, i] = narrow(total[i] * share - mean[y, x, i], found)
