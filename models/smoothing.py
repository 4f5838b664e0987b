"""Gaussian smoothing of a score map on its own grid (seed, step 6; PaDiM's sigma of 4 px at 224 px)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_REACH = 4.0  # standard deviations after which the kernel is cut off


def kernel_radius(sigma: float) -> int:
    """How far the kernel reaches, in pixels of the map; a map must be larger than that."""
    return math.ceil(_REACH * sigma)


class Smoothing(nn.Module):
    """(b, h, w) -> (b, h, w), a separable Gaussian with mirrored borders.

    `sigma` is in pixels of the map; 0 leaves the map as it is.
    """

    kernel: Tensor

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.radius = kernel_radius(sigma)
        offsets = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32)
        weights = torch.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2)
        self.register_buffer("kernel", weights / weights.sum())

    def forward(self, score_map: Tensor) -> Tensor:
        """(b, h, w) float32, both edges larger than the kernel's radius -> the same, smoothed."""
        if self.radius == 0:
            return score_map
        r = self.radius
        padded = F.pad(score_map.unsqueeze(1), (r, r, r, r), mode="reflect")  # (b, 1, h + 2r, w + 2r)
        rows = F.conv2d(padded, self.kernel.view(1, 1, -1, 1))
        return F.conv2d(rows, self.kernel.view(1, 1, 1, -1)).squeeze(1)
