"""Z of a few positions of all pictures on CPUs, from the levels' shares of it, each on its own grid, upsampled, added.

What `models.loops.one_pass` does with the shares of one picture, where a fit has those of all, position by position.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy import float32
from torch import Tensor

from models.loops.bfloat16 import narrow, numbers, wide
from models.loops.compiled import compiled, warm_up
from models.loops.one_pass import add_across, neighbours, put_across


@cache
def ready_for(dtype: torch.dtype) -> bool:
    """Compile it for shares of that type, unless that has been done; False where it cannot be."""
    return warm_up(lambda: _call(dtype))


def joined(fine: Tensor, coarse: Sequence[Tensor], *, row: int, left: int, grid: tuple[int, int]) -> Tensor:
    """Z (k, n, d) of k positions of a row of the grid (h, w), from column `left` on, in this thread.

    `fine` (k, n, d_1) is the finest level's share there, `coarse` (h_l, w_l, n, d_l) are all of the two others', of one
    type, float32 or bfloat16, which z is too. They are what z's first numbers are made of: d_1 <= d_2 <= d_3 = d.
    Raises ValueError where that is not so.
    """
    middle, coarsest = coarse
    k, n, d = len(fine), fine.shape[1], coarsest.shape[3]
    sizes = [part.shape[-1] for part in (fine, middle, coarsest)]
    sound = (
        sizes == sorted(sizes)
        and middle.shape[2] == coarsest.shape[2] == n
        and fine.dtype == middle.dtype == coarsest.dtype
        and all(part.is_contiguous() for part in (fine, middle, coarsest))
        and 0 <= row < grid[0]
        and 0 <= left <= grid[1] - k
    )
    if not sound:  # which no loop would notice: it would read what lies behind
        raise ValueError(f"shares {[tuple(part.shape) for part in (fine, middle, coarsest)]} do not go together")
    z = torch.empty(k, n, d, dtype=fine.dtype)
    _join(numbers(fine), numbers(middle), numbers(coarsest), row, grid[0], left, grid[1], numbers(z))
    return z


def _call(dtype: torch.dtype) -> None:
    coarse = [torch.zeros(1, 1, 1, 1, dtype=dtype)] * 2
    joined(torch.zeros(1, 1, 1, dtype=dtype), coarse, row=0, left=0, grid=(1, 1))


@compiled
def _join(fine: Any, middle: Any, coarsest: Any, y: Any, h: Any, left: Any, w: Any, z: Any) -> None:
    k, n, d = z.shape
    row2 = np.empty((1, middle.shape[1], middle.shape[3]), float32)
    row3 = np.empty((1, coarsest.shape[1], d), float32)
    total = np.empty(d, float32)
    for j in range(n):
        _stretch_down(middle, j, y, h, left, k, w, row2)
        _stretch_down(coarsest, j, y, h, left, k, w, row3)
        for x in range(k):
            put_across(row3, 0, left + x, w, total)
            add_across(row2, 0, left + x, w, total)
            for i in range(fine.shape[2]):
                total[i] += wide(fine[x, j, i])
            for i in range(d):
                z[x, j, i] = narrow(total[i], z)


@compiled
def _stretch_down(part: Any, j: Any, y: Any, h: Any, left: Any, k: Any, w: Any, row: Any) -> None:
    """Row y of h of picture j, still as wide as the part: of its columns those that k of w positions lie between."""
    upper, lower, share = neighbours(y, h, part.shape[0])
    first, _, _ = neighbours(left, w, part.shape[1])
    _, last, _ = neighbours(left + k - 1, w, part.shape[1])
    for x in range(first, last + 1):
        for i in range(part.shape[3]):
            row[0, x, i] = (float32(1) - share) * wide(part[upper, x, j, i]) + share * wide(part[lower, x, j, i])
