"""Pictures in the whitened space, each level on its own grid: z but for what remains to be upsampled and added.

As `CompactGaussian` does it: pooling, centring and whitening are linear, as upsampling is, and a coarse level has so
few places of its own that they are whitened once and kept. The finest level's are whitened when they are asked for,
which happens once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from models.compact_gaussian import filled_rows
from models.loops import joined
from models.products import product
from training.deviations import Deviations
from training.joining import Block, Patch
from training.parallel import in_parallel
from training.scratch import scratch_tensor


@dataclass(frozen=True)
class Whitened:
    """What z is made of for some pictures, those of `about`.

    `matrices` (c_l, k_l) are of the type that is computed in, `coarse` (h_l, w_l, m, k_l) what the coarser
    levels come to. k_l never falls: the coarsest level fills all of k, a finer one its first ones. `compiled`: by
    loops, which are ready.
    """

    about: Deviations
    matrices: Sequence[Tensor]
    coarse: Sequence[Tensor]
    compiled: bool

    def z(self, block: Block) -> Tensor:
        """Z of all pictures, (positions, m, k), in the type that is computed in."""
        joining = self.about.joining
        fine = self.own(Patch(0, block.row, block.columns))
        if self.compiled:
            grid = joining.features.grids[0]
            return joined.joined(fine, self.coarse, row=block.row, left=block.columns.start, grid=grid)
        coarsest, middle = (
            joining.upsampled(level, block, self.coarse[level - 1], self.about.device) for level in (2, 1)
        )
        for part in (middle, fine):
            coarsest[..., : part.shape[-1]] += part
        return coarsest.to(fine.dtype)

    def own(self, patch: Patch) -> Tensor:
        """A level's share of z on its own grid, (places, m, k_l)."""
        matrix = self.matrices[patch.level]
        near = self.about.own(patch, dtype=matrix.dtype)  # (places, m, c)
        return product(near.flatten(0, 1), matrix.T).view(*near.shape[:2], -1)


@torch.inference_mode()
def whiten(about: Deviations, whitening: Tensor, *, dtype: torch.dtype) -> Whitened:
    """Pictures under W (d, k), where `about` is, computed in `dtype`, float32 or bfloat16.

    Not to be called by several threads at once. Raises RecipeError where there is no room for the coarser levels.
    """
    features, device, count = about.joining.features, about.device, len(about.images)
    matrices = [matrix.to(dtype) for matrix in _levelwise(whitening, features.channels)]
    shapes = [(*grid, count, matrix.shape[1]) for grid, matrix in zip(features.grids, matrices, strict=True)]
    coarse = [scratch_tensor(shape, dtype, folder=features.folder) for shape in shapes[1:]]
    found = Whitened(about, matrices, coarse, compiled=device.type == "cpu" and joined.ready_for(dtype))

    def fill(patch: Patch) -> None:
        coarse[patch.level - 1][patch.row, patch.columns] = found.own(patch).cpu()

    patches = [patch for patch in about.joining.patches(count) if patch.level > 0]
    for _ in in_parallel(fill, patches, device=device):
        pass
    return found


def _levelwise(whitening: Tensor, channels: Sequence[int]) -> list[Tensor]:
    """W (d, k) as the three levels' own, (c_l, k_l): less the columns at their ends that hold nothing."""
    parts = whitening.split(list(channels))
    filled = list(accumulate((filled_rows(part.T) for part in parts[:-1]), max))
    return [part[:, :count].contiguous() for part, count in zip(parts, [*filled, whitening.shape[1]], strict=True)]
