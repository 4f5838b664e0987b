"""Pooling and upsampling of levels at a few positions, for all pictures at once: what a fit needs.

`models.pooling` and `models.mfcsam.concatenate` do the same for whole pictures. Both are linear and separable, so
each is a few small matrices, for rows and for columns, made by running the originals on a basis. What is linear too
may be done between two of them: `near` has a row of the fine grid, but each level's own columns, a quarter as many for
the third level, and `spread` upsamples what becomes of them. Where only a sum over all positions is wanted, nothing is
upsampled: `meeting` has what one level comes to at the places of another.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.loops.deviations import Weights
from models.pooling import pooled
from training.arrays import Indices
from training.features import Features

_BLOCK_BYTES = 64 * 2**20  # of float32 features (positions, n, d) at a time; several such arrays exist at once
_CACHED_BYTES = 16 * 2**20  # the same on a CPU, for what is gone through several times


@dataclass(frozen=True)
class Block:
    """Positions `columns` of `row` of the first level's grid; `positions` are their places in the flattened map."""

    row: int
    columns: slice
    positions: slice


@dataclass(frozen=True)
class Patch:
    """Places `columns` of `row` of a level's own grid."""

    level: int
    row: int
    columns: slice


class Joining:
    """The embedding y of chosen positions: levels pooled by `pooling`, joined on the first one's grid."""

    def __init__(self, features: Features, pooling: int) -> None:
        self.features, self.pooling = features, pooling
        height, width = features.grids[0]
        self._pool = [(_operator(h, h, pooling), _operator(w, w, pooling)) for h, w in features.grids]
        self._up = [(_operator(h, height, 1), _operator(w, width, 1)) for h, w in features.grids]
        self._root = [(_root(rows), _root(columns)) for rows, columns in self._up]

    def blocks(self, images: int, *, matrix_bytes: int = 0) -> Iterator[Block]:
        """All positions, as many at a time as bounded memory allows for that many `images`.

        `matrix_bytes` is what else is worked on at each position, where that is more.
        """
        height, width = self.features.grids[0]
        each = max(4 * images * sum(self.features.channels), matrix_bytes)
        for row in range(height):
            yield from _blocks(row, width, _BLOCK_BYTES // each)

    def rows(self, images: int, device: torch.device) -> Iterator[list[Block]]:
        """All positions, a row of the fine grid after the other, in pieces that a core's caches hold if they can."""
        height, width = self.features.grids[0]
        most = (_CACHED_BYTES if device.type == "cpu" else _BLOCK_BYTES) // (4 * images * sum(self.features.channels))
        for row in range(height):
            yield list(_blocks(row, width, most))

    def patches(self, images: int) -> Iterator[Patch]:
        """All places of all levels, as many at a time as bounded memory allows for that many `images`."""
        most = _BLOCK_BYTES // (4 * images * sum(self.features.channels))
        for level, (height, width) in enumerate(self.features.grids):
            for row in range(height):
                yield from (Patch(level, row, part) for part in _pieces(width, most))

    def own(self, patch: Patch) -> Weights:
        """What the patch's level is weighted by to be pooled there."""
        rows, columns = self._pool[patch.level]
        return _weights(rows[patch.row], columns[patch.columns])

    def balanced(self, patch: Patch) -> Weights:
        """The same, and by a root of how much each place is worth on the fine grid.

        Products of what comes of that with itself, added over all of a level's patches, are the level's products with
        itself, pooled and upsampled, added over all positions.
        """
        (rows, columns), (down, across) = self._pool[patch.level], self._root[patch.level]
        return _weights(down[patch.row] @ rows, across[patch.columns] @ columns)

    def meeting(self, level: int, patch: Patch) -> Weights:
        """What another level is weighted by to be upsampled and come to a patch.

        Its products with `own`, added over all of a level's patches, are those of the two levels, pooled and
        upsampled, added over all positions.
        """
        (rows, columns), (up_rows, up_columns) = self._pool[level], self._up[level]
        its_rows, its_columns = self._up[patch.level]
        down = its_rows[:, patch.row] @ up_rows @ rows
        across = its_columns[:, patch.columns].T @ up_columns @ columns
        return _weights(down, across)

    def near(self, block: Block, images: Indices, device: torch.device) -> list[Tensor]:
        """The levels of the pictures at `images` on a block's row, pooled, in their own columns: (w', m, c_l) each.

        w' are those columns that the block's positions take part of.
        """
        pictures, found = as_slice(self.features.places(images)), []
        for level, ((rows, columns), (up_rows, _)) in enumerate(zip(self._pool, self._up, strict=True)):
            across = columns[self._seen(level, block)]  # (w', w_l)
            weights = _weights(up_rows[block.row] @ rows, across)
            found.append(weighted(self.features.levels[level], weights, pictures, device))
        return found

    def upsampled(self, level: int, block: Block, whole: Tensor, device: torch.device) -> Tensor:
        """What is linear in a pooled level, (h_l, w_l, m, c) on the CPU, at the block's positions: (k, m, c)."""
        rows, columns = self._up[level]
        return weighted(whole, _weights(rows[block.row], columns[block.columns]), slice(None), device)

    def spread(self, level: int, block: Block, row: Tensor) -> Tensor:
        """What is linear in `near`'s answer, (w', m, c), at the block's positions: (k, m, c)."""
        if level == 0:  # the finest: it has a column for each position
            return row
        across = self._up[level][1][block.columns, self._seen(level, block)].to(row)
        return (across @ row.flatten(1)).view(-1, *row.shape[1:])

    def embed(self, block: Block, images: Indices, device: torch.device) -> Tensor:
        """Y of the pictures at `images`, (positions, m, d) float32 on `device`."""
        rows = self.near(block, images, device)
        return torch.cat([self.spread(level, block, row) for level, row in enumerate(rows)], dim=2)

    def _seen(self, level: int, block: Block) -> slice:
        return _support(self._up[level][1][block.columns])


def weighted(level: Tensor, weights: Weights, pictures: Tensor | slice, device: torch.device) -> Tensor:
    """Rows and columns of a level (h, w, n, c) by their weights, added, of some of n pictures: (k, m, c) float32."""

    def taken(line: Tensor) -> Tensor:
        return line[:, pictures].to(device)  # (w', m, c)

    top, down, left, across = weights
    lines = level[top : top + len(down), left : left + across.shape[1]]
    row = _weighted(down, map(taken, lines))
    return (across.to(device) @ row.flatten(1)).view(-1, *row.shape[1:])


def as_slice(places: Indices) -> Tensor | slice:
    """Consecutive places as a range: what is taken by one is not copied."""
    consecutive = len(places) > 0 and bool((np.diff(places) == 1).all())
    return slice(int(places[0]), int(places[-1]) + 1) if consecutive else torch.tensor(places)


def _weighted(weights: Tensor, lines: Iterable[Tensor]) -> Tensor:
    """Lines by their weights, added, in float32. One at a time and in place: pages that are new cost more than sums."""
    pairs = zip(weights.tolist(), lines, strict=True)
    weight, line = next(pairs)
    total = line.to(torch.float32, copy=True).mul_(weight)
    widened = total if line.dtype == torch.float32 else torch.empty_like(total)
    for weight, line in pairs:
        total.add_(line if line.dtype == torch.float32 else widened.copy_(line), alpha=weight)
    return total


def _blocks(row: int, width: int, most: int) -> Iterator[Block]:
    """A row of the fine grid, at most so many positions at a time."""
    for part in _pieces(width, most):
        yield Block(row, part, slice(row * width + part.start, row * width + part.stop))


def _pieces(length: int, most: int) -> Iterator[slice]:
    """A row in pieces of about equal length, `most` or 1: where they meet, work is done twice."""
    count = -(-length // max(1, min(length, most)))
    step = -(-length // count)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _weights(down: Tensor, across: Tensor) -> Weights:
    """Of all rows (h,) and of all columns (k, w), those from the first to the last that takes part."""
    high, wide = _support(down.unsqueeze(0)), _support(across)
    return Weights(high.start, down[high], wide.start, across[:, wide])


def _operator(size: int, target: int, pooling: int) -> Tensor:
    """One axis of pooling and upsampling from `size` to `target` samples, (target, size)."""
    (basis,) = pooled([torch.eye(size).view(size, 1, size, 1)], pooling)
    # Upsampled along this axis alone; where the sizes are equal `concatenate` does not, and this changes nothing.
    return F.interpolate(basis, (target, 1), mode="bilinear", align_corners=False).view(size, target).T


def _root(up: Tensor) -> Tensor:
    """The R (h, h) of RᵀR = UᵀU, which upsampling by U (H, h) makes of products."""
    up = up.double()
    found: Tensor = torch.linalg.cholesky(up.T @ up, upper=True)
    return found.float()


def _support(weights: Tensor) -> slice:
    """The columns from the first to the last that any row of `weights` takes part of."""
    used = weights.abs().sum(0).nonzero().flatten()
    return slice(int(used[0]), int(used[-1]) + 1)
