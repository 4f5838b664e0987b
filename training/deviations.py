"""How far some pictures' levels are from the mean of the good ones, pooled, at a few places of a level's own grid.

That is what a compact Gaussian is fitted to: products of it are summed up (`training.whitening`), and it is whitened
(`training.whitened`). The mean is off before anything is rounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.loops import deviations
from models.loops.deviations import Weights
from models.pooling import pooled
from training.arrays import Indices
from training.joining import Joining, Patch, as_slice, weighted


@dataclass(frozen=True)
class Deviations:
    """Those of the pictures at `images` of a joining's features.

    `means` are the levels', not pooled, (h_l, w_l, c_l) float32.
    """

    joining: Joining
    images: Indices
    means: Sequence[Tensor]

    @classmethod
    def from_mean(cls, joining: Joining, images: Indices, *, known: Indices) -> "Deviations":
        """Those of `images` from the mean of the pictures `known`."""
        pictures = as_slice(joining.features.places(known))
        rows = ([row[:, pictures].mean(1, dtype=torch.float32) for row in level] for level in joining.features.levels)
        return cls(joining, images, [torch.stack(means) for means in rows])

    def pooled_means(self) -> list[Tensor]:
        """What was taken from the pooled levels, (c_l, h_l, w_l)."""
        return [pooled([mean.permute(2, 0, 1)], self.joining.pooling)[0] for mean in self.means]

    def own(self, patch: Patch, device: torch.device, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """The patch's level there, (k, m, c)."""
        return self._weighted(patch.level, self.joining.own(patch), device, dtype)

    def balanced(self, patch: Patch, device: torch.device) -> Tensor:
        """The same, as `Joining.balanced` has it: what is to be multiplied with itself."""
        return self._weighted(patch.level, self.joining.balanced(patch), device)

    def meeting(self, level: int, patch: Patch, device: torch.device) -> Tensor:
        """What another level comes to there, as `Joining.meeting` has it: what is to be multiplied with `own`."""
        return self._weighted(level, self.joining.meeting(level, patch), device)

    def _weighted(
        self, level: int, weights: Weights, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        features, mean = self.joining.features.levels[level], self.means[level]
        places = self.joining.features.places(self.images)
        if device.type == "cpu" and deviations.ready_for(features.dtype):
            return deviations.deviations(features, mean, places, weights, dtype=dtype)
        usual = weighted(mean.unsqueeze(2), weights, slice(None), device)
        return weighted(features, weights, as_slice(places), device).sub_(usual).to(dtype)
