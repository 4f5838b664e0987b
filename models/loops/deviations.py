"""Weighted rows and columns of a level less its mean, of many pictures, on CPUs: what a fit pools and multiplies.

Rows are added first, then columns, one picture after the other: what is between stays in a core's cache. Sums are in
float32, and rounded once, when the mean is off: a difference from it is small.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import float32
from numpy.typing import NDArray
from torch import Tensor

from models.loops.bfloat16 import narrow, numbers, wide
from models.loops.compiled import compiled, warm_up

_USUAL = 3  # rows, of which the sum is taken at once


class Weights(NamedTuple):
    """Rows from `top` on are weighted by `down` (h',), columns from `left` on by `across` (k, w'); float32."""

    top: int
    down: Tensor
    left: int
    across: Tensor


@cache
def ready_for(dtype: torch.dtype) -> bool:
    """Compile it for levels of that type, unless that has been done; False where it cannot be."""
    return warm_up(lambda: _call_all(dtype))


def deviations(
    level: Tensor, mean: Tensor, pictures: NDArray[np.int64], weights: Weights, *, dtype: torch.dtype
) -> Tensor:
    """Level (h, w, n, c) float32 or bfloat16, less `mean` (h, w, c) float32, weighted and added: (k, m, c) in `dtype`.

    That is float32 or the level's type; `pictures` are the places of m of n. In this thread. Raises ValueError where
    they do not go together.
    """
    h, w, n, c = level.shape
    top, down, left, across = weights
    sound = (
        mean.shape == (h, w, c)
        and 0 <= top <= h - len(down)
        and 0 <= left <= w - across.shape[1]
        and (not len(pictures) or 0 <= pictures.min() <= pictures.max() < n)
        and level.is_contiguous()
        and mean.is_contiguous()
    )
    if not sound:  # which no loop would notice: it would read what lies behind
        raise ValueError(f"a level {tuple(level.shape)} and a mean {tuple(mean.shape)} do not go with {weights}")
    found = torch.empty(len(across), len(pictures), c, dtype=dtype)
    edges = down.contiguous().numpy(), across.contiguous().numpy()
    _deviations(numbers(level), mean.numpy(), pictures, top, edges[0], left, edges[1], numbers(found))
    return found


def _call_all(dtype: torch.dtype) -> None:
    level, mean = torch.zeros(1, 1, 1, 1, dtype=dtype), torch.zeros(1, 1, 1)
    weights = Weights(0, torch.ones(1), 0, torch.ones(1, 1))
    for wanted in {dtype, torch.float32}:
        deviations(level, mean, np.zeros(1, np.int64), weights, dtype=wanted)


@compiled
def _deviations(level: Any, mean: Any, pictures: Any, top: Any, down: Any, left: Any, across: Any, found: Any) -> None:
    w, c = across.shape[1], level.shape[3]
    usual, row, total = np.zeros((w, c), float32), np.empty((w, c), float32), np.empty(c, float32)
    for x in range(w):
        for y in range(len(down)):
            for i in range(c):
                usual[x, i] += down[y] * mean[top + y, left + x, i]
    for j in range(len(pictures)):
        _add_rows(level, pictures[j], top, down, left, usual, row)
        for x in range(len(across)):
            for i in range(c):
                total[i] = 0
            for column in range(w):
                weight = across[x, column]
                if weight != 0:
                    for i in range(c):
                        total[i] += weight * row[column, i]
            for i in range(c):
                found[x, j, i] = narrow(total[i], found)


@compiled
def _add_rows(level: Any, picture: Any, top: Any, down: Any, left: Any, usual: Any, row: Any) -> None:
    """A picture's rows by their weights, added, less what is usual there: (w', c)."""
    for x in range(row.shape[0]):
        if len(down) == _USUAL:
            for i in range(row.shape[1]):
                first, second = level[top, left + x, picture, i], level[top + 1, left + x, picture, i]
                third = level[top + 2, left + x, picture, i]
                row[x, i] = down[0] * wide(first) + down[1] * wide(second) + down[2] * wide(third) - usual[x, i]
        else:
            for i in range(row.shape[1]):
                row[x, i] = down[0] * wide(level[top, left + x, picture, i]) - usual[x, i]
            for y in range(1, len(down)):
                for i in range(row.shape[1]):
                    row[x, i] += down[y] * wide(level[top + y, left + x, picture, i])
