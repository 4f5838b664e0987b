"""Gaussian smoothing of a score map on its own grid (seed, step 6; PaDiM's sigma of 4 px at 224 px).

Positions that are ignored take no part: they are 0 afterwards, and the others are averages of one another alone
(normalised convolution), so that what moves in an ignored place neither adds to its neighbours nor dilutes them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ArtifactError

_REACH = 4.0  # standard deviations after which the kernel is cut off


def kernel_radius(sigma: float) -> int:
    """How far the kernel reaches, in pixels of the map; a map must be larger than that."""
    return math.ceil(_REACH * sigma)


class Smoothing(nn.Module):
    """(b, h, w) -> (b, h, w), a separable Gaussian with mirrored borders.

    `sigma` is in pixels of the map; 0 leaves the map as it is. With `grid`, the map's (h, w), there is a buffer
    `keep` of it, bool, false where positions are ignored; at first none is. Without, none can be.
    """

    kernel: Tensor
    keep: Tensor | None

    def __init__(self, sigma: float, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.radius = kernel_radius(sigma)
        offsets = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32)
        weights = torch.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2)
        self.register_buffer("kernel", weights / weights.sum())
        self.register_buffer("keep", None if grid is None else torch.ones(grid, dtype=torch.bool))

    def forward(self, score_map: Tensor) -> Tensor:
        """(b, h, w) float32, both edges larger than the kernel's radius -> the same, smoothed."""
        if self.keep is None:
            return self._blur(score_map)
        weights = self.keep.to(score_map.dtype).unsqueeze(0)  # (1, h, w)
        # Against the blur of ones, not against 1: where all is kept, the share is exactly 1 and nothing changes.
        share = self._blur(weights) / self._blur(torch.ones_like(weights))
        # Multiplied, not selected: a value that is not finite is a fault wherever it is, and must stay one.
        return torch.where(self.keep, self._blur(score_map * weights) / share, score_map * 0)

    def check(self) -> None:
        """Raise ArtifactError where every position is ignored: such a detector would pass everything."""
        if self.keep is not None and not self.keep.any():
            raise ArtifactError("tensor smoothing.keep ignores every position: nothing would ever fail.")

    def _blur(self, score_map: Tensor) -> Tensor:
        if self.radius == 0:
            return score_map
        r = self.radius
        padded = F.pad(score_map.unsqueeze(1), (r, r, r, r), mode="reflect")  # (b, 1, h + 2r, w + 2r)
        rows = F.conv2d(padded, self.kernel.view(1, 1, -1, 1))
        return F.conv2d(rows, self.kernel.view(1, 1, 1, -1)).squeeze(1)
