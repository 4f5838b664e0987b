"""The distance M of `models.compact_gaussian` on CPUs, in one pass over the directions.

Reading the directions takes longer than all that is done with them: 45 MB for resnet18 at 224 px. So a row of positions
at a time, z is put together in the cache from the levels' shares of it, and all pictures of a batch meet a position's
directions while these are there and the next ones are fetched. Directions stay in their eight bits and z is rounded to
sixteen. Their products, and the sums of 512 of them, are exact; the rest is added up in float32: enough digits are left
of the difference that M² is (models/residuals.py).
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from numpy import float32
from torch import Tensor

from models.loops.bfloat16 import numbers, wide
from models.loops.compiled import compiled, compiled_side_by_side, run
from models.loops.integer_products import (
    LANES,
    PAIR,
    products_of_eight,
    products_of_four,
    products_of_one,
    products_of_two,
)

_TOGETHER = 8  # pictures at a time: their z stay in a core's own cache, and with AVX-512 their sums in registers
_MOST = 2**15 - 1  # of z when it is rounded
_SEGMENT = 256  # pairs of which the products with a direction's, of 2**7 at most, add up to less than 2**31
_MAGNITUDE = np.int32(2**31 - 1)  # all bits but the sign
_TINY = float32(1e-30)


def interleaved(directions: Tensor, corrections: Tensor) -> tuple[Tensor, Tensor]:
    """Directions (p, k, r) int8 and corrections (p, r) as `distances` takes them: (p, n, k', 16, 2) and (p, n, 16).

    That is n times 16 directions, of each of which two numbers lie side by side; zeros fill up what is missing.
    """
    lanes, odd = -directions.shape[2] % LANES, directions.shape[1] % PAIR
    filled = F.pad(directions, (0, lanes, 0, odd)) if lanes or odd else directions  # which are large
    blocks = filled.unflatten(2, (-1, LANES)).unflatten(1, (-1, PAIR)).permute(0, 3, 1, 4, 2)
    return blocks.contiguous(), F.pad(corrections, (0, lanes)).unflatten(1, (-1, LANES))


def distances(parts: Sequence[Tensor], directions: Tensor, corrections: Tensor, *, shrinkage: float) -> Tensor:
    """M, (b, h, w) float32, of the levels' shares of z under the directions that `interleaved` gives.

    `parts` are three (b, h_l, w_l, k_l) of one type, float32 or bfloat16, each on its level's own grid, the first one's
    being h x w; bilinearly stretched to that they add up to z. The last one fills all k dimensions, the others the
    first k_l. A position's z is rounded to steps of a 32,767th of its largest number. Raises ValueError where shapes do
    not go together.
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
    p, blocks, pairs, *inner = directions.shape
    b, h, w, _ = parts[0].shape
    k = parts[-1].shape[3]
    sound = (
        (p, pairs, inner) == (h * w, -(-k // PAIR), [LANES, PAIR])
        and corrections.shape == (p, blocks, LANES)
        and directions.dtype == torch.int8
        and directions.is_contiguous()
        and all(len(part) == b and part.shape[1] and part.shape[2] and 0 < part.shape[3] <= k for part in parts)
    )
    if not sound:
        shapes = [(each.dtype, tuple(each.shape)) for each in (*parts, directions, corrections)]
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
    k = p3.shape[3]
    blocks, pairs = directions.shape[1:3]
    row2 = np.empty((b, p2.shape[2], p2.shape[3]), float32)
    row3 = np.empty((b, p3.shape[2], k), float32)
    for j in range(b):
        _stretch_down(p2, j, y, h, row2)
        _stretch_down(p3, j, y, h, row3)
    z, rounded, along = np.empty(k, float32), np.zeros((b, pairs * PAIR), np.int16), np.empty((b, LANES), float32)
    fineness, left, sums = np.empty(b, float32), np.empty(b, float32), np.empty((b, LANES), np.int32)
    for x in range(w):
        for j in range(b):
            put_across(row3, j, x, w, z)
            add_across(row2, j, x, w, z)
            _add_fine(p1, j, y, x, z)
            fineness[j] = _fineness(z)
            left[j] = _round(z, fineness[j], j, rounded)
        for block in range(blocks):
            _multiply(rounded, directions, y * w + x, block, sums, along)
            for j in range(b):
                left[j] -= _explained(along, j, corrections, y * w + x, block)
        for j in range(b):
            found[j, y, x] = np.sqrt(_not_below_zero(left[j]) / shrinkage) / fineness[j]


@compiled
def _not_below_zero(difference: Any) -> Any:
    """What is not a number stays that."""
    return float32(0) if difference < 0 else difference


@compiled
def neighbours(at: Any, fine: Any, coarse: Any) -> Any:
    """Between which two of `coarse` samples number `at` of `fine` lies, and how far on its way to the second.

    As torch's interpolate without aligned corners.
    """
    place = max((float32(at) + float32(0.5)) * (float32(coarse) / float32(fine)) - float32(0.5), float32(0))
    first = min(int(place), coarse - 1)
    return first, min(first + 1, coarse - 1), place - float32(first)


@compiled
def _stretch_down(part: Any, j: Any, y: Any, h: Any, row: Any) -> None:
    """Row y of h of picture j's part (h_l, w_l, k_l), still as wide as that: (w_l, k_l)."""
    upper, lower, share = neighbours(y, h, part.shape[1])
    for x in range(part.shape[2]):
        for i in range(part.shape[3]):
            row[j, x, i] = (float32(1) - share) * wide(part[j, upper, x, i]) + share * wide(part[j, lower, x, i])


@compiled
def put_across(row: Any, j: Any, x: Any, w: Any, z: Any) -> None:
    """What `_stretch_down` made, at x of w, as picture j's z."""
    before, behind, share = neighbours(x, w, row.shape[1])
    for i in range(row.shape[2]):
        z[i] = (float32(1) - share) * row[j, before, i] + share * row[j, behind, i]


@compiled
def add_across(row: Any, j: Any, x: Any, w: Any, z: Any) -> None:
    """The same, added."""
    before, behind, share = neighbours(x, w, row.shape[1])
    for i in range(row.shape[2]):
        z[i] += (float32(1) - share) * row[j, before, i] + share * row[j, behind, i]


@compiled
def _add_fine(part: Any, j: Any, y: Any, x: Any, z: Any) -> None:
    """The finest level's share added to picture j's z."""
    for i in range(part.shape[3]):
        z[i] += wide(part[j, y, x, i])


@compiled
def _fineness(z: Any) -> Any:
    """By what z is multiplied so that its largest number is `_MOST` when it is rounded; nan where z is not finite."""
    bits = np.int32(0)
    for i in range(len(z)):
        bits = max(bits, _size_in_bits(z[i]))
    largest = np.int32(bits).view(float32)
    return float32(_MOST) / max(largest, _TINY) if largest < np.inf else float32(np.nan)


@compiled
def _size_in_bits(x: Any) -> Any:
    """A number's bits but its sign's: they are ordered as sizes are, and what is no number comes last."""
    return np.int32(float32(x).view(np.int32) & _MAGNITUDE)


@compiled
def _round(z: Any, fineness: Any, j: Any, rounded: Any) -> Any:
    """Row j of `rounded` becomes z times `fineness`; returned is its squared length, nan where that is."""
    if not fineness > 0:
        return float32(np.nan)
    total = float32(0)
    for i in range(len(z)):
        n = np.int32(np.int32(z[i] * fineness + float32(_MOST + 1.5)) - np.int32(_MOST + 1))  # to the nearest
        rounded[j, i] = np.int16(n)
        total += float32(n) * float32(n)
    return total


@compiled
def _multiply(rounded: Any, directions: Any, p: Any, block: Any, sums: Any, along: Any) -> None:
    """`along`: products of sixteen directions of position p with all pictures' z.

    A segment at a time, whose `sums` have room in their bits, while the next position's directions are asked for.
    """
    blocks, pairs = directions.shape[1:3]
    size = pairs * LANES * PAIR
    start, ahead = (p * blocks + block) * size, blocks * size
    for at in range(0, pairs, _SEGMENT):
        _multiply_pairs(rounded, directions, at, min(_SEGMENT, pairs - at), start + at * LANES * PAIR, ahead, sums)
        for j in range(len(sums)):
            for lane in range(LANES):
                along[j, lane] = float32(sums[j, lane]) + (along[j, lane] if at else float32(0))


@compiled
def _multiply_pairs(rounded: Any, directions: Any, at: Any, pairs: Any, start: Any, ahead: Any, sums: Any) -> None:
    """By as many pictures at a time as there are; eight at most."""
    b, j = len(rounded), 0
    if b & 8:
        products_of_eight(rounded, j, at, directions, start, pairs, ahead, sums)
        j += 8
    if b & 4:
        products_of_four(rounded, j, at, directions, start, pairs, ahead, sums)
        j += 4
    if b & 2:
        products_of_two(rounded, j, at, directions, start, pairs, ahead, sums)
        j += 2
    if b & 1:
        products_of_one(rounded, j, at, directions, start, pairs, ahead, sums)


@compiled
def _explained(along: Any, j: Any, corrections: Any, p: Any, block: Any) -> Any:
    """What sixteen directions of position p explain of picture j's squared length, as it is rounded."""
    total = float32(0)
    for lane in range(LANES):
        total += corrections[p, block, lane] * along[j, lane] * along[j, lane]
    return total
