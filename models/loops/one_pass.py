"""The distance M of `models.compact_gaussian` on CPUs, in one pass over the directions.

Reading the directions takes longer than all that is done with them: 45 MB for resnet18 at 224 px. So a row of positions
at a time, z is put together in the cache from the levels' shares of it, and all pictures of a batch meet a position's
directions while these are there and the next ones are fetched. In float32 from the shares on, and the directions stay
in their eight bits: enough digits are left of the difference that M² is (models/residuals.py).
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from numpy import float32
from torch import Tensor

from models.loops.bfloat16 import numbers, wide
from models.loops.compiled import compiled, compiled_side_by_side, run
from models.loops.prefetch import fetch_line

_TOGETHER = 8  # pictures at a time: their z stay in a core's own cache
_LINE = 64  # bytes of memory that a processor fetches at a time
_GROUP = 4  # directions, and pictures, that are multiplied with each other while they are in registers


def interleaved(directions: Tensor, corrections: Tensor) -> tuple[Tensor, Tensor]:
    """Directions (p, k, r) int8 and corrections (p, r) as `distances` takes them: (p, r', k) and (p, r').

    A direction's numbers lie side by side, and zeros make r' a multiple of four.
    """
    p, k, r = directions.shape
    filled = -(-r // _GROUP) * _GROUP
    rows, lengths = directions.new_zeros(p, filled, k), corrections.new_zeros(p, filled)
    rows[:, :r], lengths[:, :r] = directions.transpose(1, 2), corrections
    return rows, lengths


def distances(parts: Sequence[Tensor], directions: Tensor, corrections: Tensor, *, shrinkage: float) -> Tensor:
    """M, (b, h, w) float32, of the levels' shares of z under the directions that `interleaved` gives.

    `parts` are three (b, h_l, w_l, k_l) of one type, float32 or bfloat16, each on its level's own grid, the first one's
    being h x w; bilinearly stretched to that they add up to z. The last one fills all k dimensions, the others the
    first k_l. Raises ValueError where shapes do not go together.
    """
    _check(parts, directions, corrections)
    first, second, third = (numbers(part.contiguous()) for part in parts)
    found = torch.empty(first.shape[:3])
    found_there = found.numpy()
    for start in range(0, len(first), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        run(
            _rows,
            *(first[some], second[some], third[some]),
            *(directions.numpy(), corrections.numpy(), float32(shrinkage)),
            found_there[some],
            rounds=found.shape[1],
        )
    return found


def _check(parts: Sequence[Tensor], directions: Tensor, corrections: Tensor) -> None:
    """What no loop would notice: it would read what lies behind."""
    p, filled, k = directions.shape
    b, h, w, _ = parts[0].shape
    sound = (
        (h * w, corrections.shape, filled % _GROUP) == (p, (p, filled), 0)
        and all(len(part) == b and part.shape[1] and part.shape[2] and part.shape[3] <= k for part in parts)
        and parts[-1].shape[3] == k
    )
    if not sound:
        shapes = [tuple(each.shape) for each in (*parts, directions, corrections)]
        raise ValueError(f"parts, directions and corrections do not go together: {shapes}")


@compiled_side_by_side
def _rows(p1: Any, p2: Any, p3: Any, directions: Any, corrections: Any, shrinkage: Any, found: Any, done: Any) -> None:
    for y in numba.prange(len(done)):
        _row(np.int64(y), p1, p2, p3, directions, corrections, shrinkage, found)
        done[y] = True


# Arrays are indexed and never sliced in here: a slice counts its references, and where the threads share an array they
# would wait for each other's counting.


@compiled
def _row(y: Any, p1: Any, p2: Any, p3: Any, directions: Any, corrections: Any, shrinkage: Any, found: Any) -> None:
    """The distances of row y of the positions, of all pictures."""
    b, h, w = found.shape
    rank, k = directions.shape[1:]
    begin = np.int64(directions.ctypes.data)
    row2 = np.empty((b, p2.shape[2], p2.shape[3]), float32)
    row3 = np.empty((b, p3.shape[2], k), float32)
    for j in range(b):
        _stretch_down(p2, j, y, h, row2)
        _stretch_down(p3, j, y, h, row3)
    z, left, some = np.empty((b, k), float32), np.empty(b, float32), np.empty((_GROUP, k), float32)
    for x in range(w):
        for j in range(b):
            for i in range(k):
                z[j, i] = 0
            _add_across(row3, j, x, w, z)
            _add_across(row2, j, x, w, z)
            left[j] = _add_fine(p1, j, y, x, z)
        position = y * w + x
        for start in range(0, rank, _GROUP):
            _fetch(begin + ((position + 1) * rank + start) * k, _GROUP * k)  # the next position's
            _explain(z, directions, corrections, position, start, some, left)
        for j in range(b):
            found[j, y, x] = np.sqrt(_not_below_zero(left[j]) / shrinkage)


@compiled
def _not_below_zero(difference: Any) -> Any:
    """What is not a number stays that, and what was explained beyond all numbers becomes it: that is no good part."""
    if difference == -np.inf:
        return float32(np.nan)
    return float32(0) if difference < 0 else difference


@compiled
def _fetch(address: Any, size: Any) -> None:
    for line in range(address, address + size, _LINE):
        fetch_line(line)  # type: ignore[call-arg]


@compiled
def _neighbours(at: Any, fine: Any, coarse: Any) -> Any:
    """Between which two of `coarse` samples number `at` of `fine` lies, and how far on its way to the second.

    As torch's interpolate without aligned corners.
    """
    place = max((float32(at) + float32(0.5)) * (float32(coarse) / float32(fine)) - float32(0.5), float32(0))
    first = min(int(place), coarse - 1)
    return first, min(first + 1, coarse - 1), place - float32(first)


@compiled
def _stretch_down(part: Any, j: Any, y: Any, h: Any, row: Any) -> None:
    """Row y of h of picture j's part (h_l, w_l, k_l), still as wide as that: (w_l, k_l)."""
    upper, lower, share = _neighbours(y, h, part.shape[1])
    for x in range(part.shape[2]):
        for i in range(part.shape[3]):
            row[j, x, i] = (float32(1) - share) * wide(part[j, upper, x, i]) + share * wide(part[j, lower, x, i])


@compiled
def _add_across(row: Any, j: Any, x: Any, w: Any, z: Any) -> None:
    """What `_stretch_down` made, at x of w, added to picture j's z."""
    before, behind, share = _neighbours(x, w, row.shape[1])
    for i in range(row.shape[2]):
        z[j, i] += (float32(1) - share) * row[j, before, i] + share * row[j, behind, i]


@compiled
def _add_fine(part: Any, j: Any, y: Any, x: Any, z: Any) -> Any:
    """The finest level's share added to picture j's z, whose squared length is returned."""
    for i in range(part.shape[3]):
        z[j, i] += wide(part[j, y, x, i])
    total = float32(0)
    for i in range(z.shape[1]):
        total += z[j, i] * z[j, i]
    return total


@compiled
def _explain(z: Any, directions: Any, corrections: Any, p: Any, d: Any, some: Any, left: Any) -> None:
    """Take from `left` what four directions of position p, from d on, explain of each picture's z."""
    b, k = z.shape
    whole = b - b % _GROUP
    if whole:
        for e in range(_GROUP):
            for i in range(k):
                some[e, i] = directions[p, d + e, i]
        for j in range(0, whole, _GROUP):
            _explain_four(z, j, some, corrections, p, d, left)
    for j in range(whole, b):
        left[j] -= _explained(z, j, directions, corrections, p, d)


@compiled
def _explained(z: Any, j: Any, directions: Any, corrections: Any, p: Any, d: Any) -> Any:
    """What four directions explain of one picture's squared length."""
    a0 = a1 = a2 = a3 = float32(0)
    for i in range(z.shape[1]):
        a = z[j, i]
        a0 += a * float32(directions[p, d, i])
        a1 += a * float32(directions[p, d + 1, i])
        a2 += a * float32(directions[p, d + 2, i])
        a3 += a * float32(directions[p, d + 3, i])
    return _weighed(corrections, p, d, a0, a1, a2, a3)


@compiled
def _explain_four(z: Any, j: Any, some: Any, corrections: Any, p: Any, d: Any, left: Any) -> None:
    """Sixteen sums in as many registers: a compiler does not find this by itself in two loops of four."""
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = float32(0)
    for i in range(z.shape[1]):
        u0, u1, u2, u3 = some[0, i], some[1, i], some[2, i], some[3, i]
        z0, z1, z2, z3 = z[j, i], z[j + 1, i], z[j + 2, i], z[j + 3, i]
        a0, a1, a2, a3 = a0 + z0 * u0, a1 + z0 * u1, a2 + z0 * u2, a3 + z0 * u3
        b0, b1, b2, b3 = b0 + z1 * u0, b1 + z1 * u1, b2 + z1 * u2, b3 + z1 * u3
        c0, c1, c2, c3 = c0 + z2 * u0, c1 + z2 * u1, c2 + z2 * u2, c3 + z2 * u3
        d0, d1, d2, d3 = d0 + z3 * u0, d1 + z3 * u1, d2 + z3 * u2, d3 + z3 * u3
    left[j] -= _weighed(corrections, p, d, a0, a1, a2, a3)
    left[j + 1] -= _weighed(corrections, p, d, b0, b1, b2, b3)
    left[j + 2] -= _weighed(corrections, p, d, c0, c1, c2, c3)
    left[j + 3] -= _weighed(corrections, p, d, d0, d1, d2, d3)


@compiled
def _weighed(corrections: Any, p: Any, d: Any, a0: Any, a1: Any, a2: Any, a3: Any) -> Any:
    first, second = corrections[p, d] * a0 * a0, corrections[p, d + 1] * a1 * a1
    return first + second + corrections[p, d + 2] * a2 * a2 + corrections[p, d + 3] * a3 * a3
