"""How far some pictures' levels are from the mean of the good ones, pooled, at a few places of a level's own grid.

That is what a compact Gaussian is fitted to: products of it are summed up (`training.whitening`), and it is whitened
(`training.whitened`). The mean is off before anything is rounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.loops import deviations as loops
from models.loops.deviations import Weights
from models.pooling import pooled
from training.arrays import Indices
from training.joining import Joining, Patch, as_slice, weighted


@dataclass(frozen=True)
class Deviations:
    """Those of the pictures at `images` of a joining's features, on `device`.

    `means` are the levels', not pooled, (h_l, w_l, c_l) float32. `compiled`: by loops, which are ready.
    """

    joining: Joining
    images: Indices
    means: Sequence[Tensor]
    device: torch.device
    compiled: bool

    @classmethod
    def from_mean(cls, joining: Joining, images: Indices, *, known: Indices, device: torch.device) -> "Deviations":
        """Those of `images` from the mean of the pictures `known`. Not to be called by several threads at once."""
        features = joining.features
        pictures = as_slice(features.places(known))
        rows = ([row[:, pictures].mean(1, dtype=torch.float32) for row in level] for level in features.levels)
        means = [torch.stack(level) for level in rows]
        return cls(joining, images, means, device, compiled=device.type == "cpu" and loops.ready_for(features.dtype))

    def pooled_means(self) -> list[Tensor]:
        """What was taken from the pooled levels, (c_l, h_l, w_l)."""
        return [pooled([mean.permute(2, 0, 1)], self.joining.pooling)[0] for mean in self.means]

    def own(self, patch: Patch, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """The patch's level there, (k, m, c)."""
        return self._weighted(patch.level, self.joining.own(patch), dtype)

    def balanced(self, patch: Patch) -> Tensor:
        """The same, as `Joining.balanced` has it: what is to be multiplied with itself."""
        return self._weighted(patch.level, self.joining.balanced(patch))

    def meeting(self, level: int, patch: Patch) -> Tensor:
        """What another level comes to there, as `Joining.meeting` has it: what is to be multiplied with `own`."""
        return self._weighted(level, self.joining.meeting(level, patch))

    def _weighted(self, level: int, weights: Weights, dtype: torch.dtype = torch.float32) -> Tensor:
        features, mean = self.joining.features.levels[level], self.means[level]
        places = self.joining.features.places(self.images)
        if self.compiled:
            return loops.deviations(features, mean, places, weights, dtype=dtype)
        order = np.argsort(places)  # consecutive ones are not copied
        found = weighted(features, weights, as_slice(places[order]), self.device)
        found -= weighted(mean.unsqueeze(2), weights, slice(None), self.device)
        return found[:, torch.from_numpy(np.argsort(order)).to(self.device)].to(dtype)
