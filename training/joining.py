"""Pooling and upsampling of levels at a few positions, for all pictures at once: what a fit needs.

`models.pooling` and `models.mfcsam.concatenate` do the same for whole pictures. Both are linear and separable, so
each is a few small matrices, for rows and for columns, made by running the originals on a basis. What is linear too
may be done between two of them: `near` has a row of the fine grid, but each level's own columns, a quarter as many for
the third level, and `spread` upsamples what becomes of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.pooling import pooled
from training.arrays import Indices
from training.features import Features

_BLOCK_BYTES = 64 * 2**20  # of float32 features (positions, n, d) at a time; several such arrays exist at once


@dataclass(frozen=True)
class Block:
    """Positions `columns` of `row` of the first level's grid; `positions` are their places in the flattened map."""

    row: int
    columns: slice
    positions: slice


class Joining:
    """The embedding y of chosen positions: levels pooled by `pooling`, joined on the first one's grid."""

    def __init__(self, features: Features, pooling: int) -> None:
        self.features = features
        height, width = features.grids[0]
        self._rows = [_operator(h, height, pooling) for h, _ in features.grids]
        self._pooled_columns = [_operator(w, w, pooling) for _, w in features.grids]
        self._columns = [_operator(w, width, 1) for _, w in features.grids]

    def blocks(self, images: int, *, matrix_bytes: int = 0) -> Iterator[Block]:
        """All positions, as many at a time as bounded memory allows for that many `images`.

        `matrix_bytes` is what else is worked on at each position, where that is more.
        """
        height, width = self.features.grids[0]
        each = max(4 * images * sum(self.features.channels), matrix_bytes)
        pieces = -(-width // max(1, min(width, _BLOCK_BYTES // each)))
        step = -(-width // pieces)  # pieces of about equal length: where they meet, work is done twice
        for row in range(height):
            for start in range(0, width, step):
                stop = min(start + step, width)
                yield Block(row, slice(start, stop), slice(row * width + start, row * width + stop))

    def near(self, block: Block, images: Indices, device: torch.device) -> list[Tensor]:
        """The levels of the pictures at `images` on a block's row, pooled, in their own columns: (w', m, c_l) each.

        w' are those columns that the block's positions take part of.
        """
        pictures = _as_slice(self.features.places(images))
        found = []
        for level, (array, rows) in enumerate(zip(self.features.arrays, self._rows, strict=True)):
            across = self._pooled_columns[level][self._seen(level, block)]  # (w', w_l)
            down, wide = rows[block.row : block.row + 1], _support(across)
            high = _support(down)
            seen = (torch.from_numpy(line[:, pictures]).to(device) for line in array[high, wide])  # (w'', m, c_l) each
            row = sum(weight * line for weight, line in zip(down[0, high].tolist(), seen, strict=True))
            assert isinstance(row, Tensor), "a row of the fine grid has neighbours on each level"
            across = across[:, wide].to(device)
            found.append((across @ row.flatten(1)).view(-1, *row.shape[1:]))
        return found

    def across(self, level: int, block: Block) -> Tensor:
        """What upsamples a level along the block's row, (k, w'): k positions from the columns that `near` gives."""
        return self._columns[level][block.columns, self._seen(level, block)]

    def spread(self, level: int, block: Block, row: Tensor) -> Tensor:
        """What is linear in `near`'s answer, (w', m, c), at the block's positions: (k, m, c)."""
        if level == 0:  # the finest: it has a column for each position
            return row
        across = self.across(level, block).to(row)
        return (across @ row.flatten(1)).view(-1, *row.shape[1:])

    def embed(self, block: Block, images: Indices, device: torch.device) -> Tensor:
        """Y of the pictures at `images`, (positions, m, d) float32 on `device`."""
        rows = self.near(block, images, device)
        return torch.cat([self.spread(level, block, row) for level, row in enumerate(rows)], dim=2)

    def _seen(self, level: int, block: Block) -> slice:
        return _support(self._columns[level][block.columns])


def _as_slice(places: Indices) -> Indices | slice:
    """Consecutive places as a range: what is taken by one is not copied."""
    consecutive = len(places) > 0 and bool((np.diff(places) == 1).all())
    return slice(int(places[0]), int(places[-1]) + 1) if consecutive else places


def _operator(size: int, target: int, pooling: int) -> Tensor:
    """One axis of pooling and upsampling from `size` to `target` samples, (target, size)."""
    (basis,) = pooled([torch.eye(size).view(size, 1, size, 1)], pooling)
    # Upsampled along this axis alone; where the sizes are equal `concatenate` does not, and this changes nothing.
    return F.interpolate(basis, (target, 1), mode="bilinear", align_corners=False).view(size, target).T


def _support(weights: Tensor) -> slice:
    """The columns from the first to the last that any row of `weights` takes part of."""
    used = weights.abs().sum(0).nonzero().flatten()
    return slice(int(used[0]), int(used[-1]) + 1)
