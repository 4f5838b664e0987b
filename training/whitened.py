"""Pictures in the whitened space, each level on its own grid: z but for what remains to be upsampled and added.

As `CompactGaussian` does it: pooling, centring and whitening are linear, as upsampling is, and a coarse level has so
few places of its own that they are whitened once and kept. The finest level's are whitened when they are asked for,
which happens once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.compact_gaussian import filled_rows
from models.products import product
from training.arrays import Indices
from training.joining import Block, Joining, Patch
from training.parallel import in_parallel
from training.scratch import scratch_tensor


@dataclass(frozen=True)
class Whitened:
    """What z is made of for some `pictures` of the features, ascending; it is centred on the mean of those known.

    `order` is which of the pictures z takes first, the known ones; None: all are, in the order in which they are.
    `matrices` (c_l, k_l) are of the type that is computed in, `coarse` (h_l, w_l, m, k_l) what the coarser
    levels come to.
    """

    joining: Joining
    pictures: Indices
    order: Tensor | None
    known: int
    matrices: Sequence[Tensor]
    coarse: Sequence[Tensor]

    def z(self, block: Block) -> Tensor:
        """Z of all pictures, (positions, m, k). The coarsest level fills all of k, a finer one its first ones."""
        device = self.matrices[0].device
        coarsest, middle = (self.joining.upsampled(level, block, self.coarse[level - 1], device) for level in (2, 1))
        for part in (middle, self.own(Patch(0, block.row, block.columns))):
            coarsest[..., : part.shape[-1]] += part
        return coarsest

    def own(self, patch: Patch) -> Tensor:
        """A level's share of z on its own grid, (places, m, k_l)."""
        matrix = self.matrices[patch.level]
        near = self.joining.own(patch, self.pictures, matrix.device)  # (places, m, c)
        known = slice(self.known) if self.order is None else self.order[: self.known]
        near -= near[:, known].mean(1, keepdim=True)
        white = product(near.to(matrix.dtype).flatten(0, 1), matrix.T).view(*near.shape[:2], -1)
        return white if self.order is None else white[:, self.order]


@torch.inference_mode()
def whiten(joining: Joining, whitening: Tensor, *, known: Indices, asked: Indices, dtype: torch.dtype) -> Whitened:
    """The pictures at `known` and `asked` under W (d, k), on the device where that lies, computed in `dtype`.

    Raises RecipeError where there is no room for the coarser levels.
    """
    features, device = joining.features, whitening.device
    both = np.concatenate([known, asked])
    ascending = np.sort(both)
    order = None if np.array_equal(both, ascending) else torch.from_numpy(np.searchsorted(ascending, both)).to(device)
    matrices = [matrix.to(dtype) for matrix in _levelwise(whitening, features.channels)]
    shapes = [(*grid, len(both), matrix.shape[1]) for grid, matrix in zip(features.grids, matrices, strict=True)]
    coarse = [scratch_tensor(shape, dtype, folder=features.folder) for shape in shapes[1:]]
    found = Whitened(joining, ascending, order, len(known), matrices, coarse)

    def fill(patch: Patch) -> None:
        coarse[patch.level - 1][patch.row, patch.columns] = found.own(patch).cpu()

    patches = [patch for patch in joining.patches(len(both)) if patch.level > 0]
    for _ in in_parallel(fill, patches, device=device):
        pass
    return found


def _levelwise(whitening: Tensor, channels: Sequence[int]) -> list[Tensor]:
    """W (d, k) as the three levels' own, (c_l, k_l): less the columns at their ends that hold nothing."""
    parts = whitening.split(list(channels))
    filled = [filled_rows(part.T) for part in parts[:-1]]
    return [part[:, :count].contiguous() for part, count in zip(parts, [*filled, whitening.shape[1]], strict=True)]
