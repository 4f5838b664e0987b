"""Pooling and upsampling of levels at a few positions, for all pictures at once: what a fit needs.

`models.pooling` and `models.mfcsam.concatenate` do the same for whole pictures. Both are linear and separable, so
each is a pair of small matrices, one for rows and one for columns, made by running the originals on a basis.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.pooling import pooled
from training.arrays import Indices
from training.features import Features

_BLOCK_BYTES = 16 * 2**20  # of float32 features (positions, n, d) at a time; several such arrays exist at once


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
        self._columns = [_operator(w, width, pooling) for _, w in features.grids]

    def blocks(self, images: int, *, matrix_bytes: int = 0) -> Iterator[Block]:
        """All positions, as many at a time as bounded memory allows for that many `images`.

        `matrix_bytes` is what else is worked on at each position, where that is more.
        """
        height, width = self.features.grids[0]
        each = max(4 * images * sum(self.features.channels), matrix_bytes)
        step = max(1, min(width, _BLOCK_BYTES // each))
        for row in range(height):
            for start in range(0, width, step):
                stop = min(start + step, width)
                yield Block(row, slice(start, stop), slice(row * width + start, row * width + stop))

    def embed(self, block: Block, images: Indices, device: torch.device) -> Tensor:
        """Y of the pictures at `images`, (positions, m, d) float32 on `device`."""
        images = self.features.places(images)
        parts = []
        for array, rows, columns in zip(self.features.arrays, self._rows, self._columns, strict=True):
            down, across = rows[block.row : block.row + 1], columns[block.columns]  # (1, h_l), (k, w_l)
            high, wide = _support(down), _support(across)
            seen = torch.from_numpy(array[high, wide][:, :, images]).to(device)  # (h', w', m, c_l)
            row = torch.tensordot(down[0, high].to(device), seen, dims=1)  # (w', m, c_l)
            parts.append(torch.tensordot(across[:, wide].to(device), row, dims=1))  # (k, m, c_l)
        return torch.cat(parts, dim=2)


def _operator(size: int, target: int, pooling: int) -> Tensor:
    """One axis of pooling and upsampling from `size` to `target` samples, (target, size)."""
    (basis,) = pooled([torch.eye(size).view(size, 1, size, 1)], pooling)
    # Upsampled along this axis alone; where the sizes are equal `concatenate` does not, and this changes nothing.
    return F.interpolate(basis, (target, 1), mode="bilinear", align_corners=False).view(size, target).T


def _support(weights: Tensor) -> slice:
    """The columns from the first to the last that any row of `weights` takes part of."""
    used = weights.abs().sum(0).nonzero().flatten()
    return slice(int(used[0]), int(used[-1]) + 1)
