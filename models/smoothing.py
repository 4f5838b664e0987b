"""Gaussian smoothing of a score map on its own grid (seed, step 6; PaDiM's sigma of 4 px at 224 px).

Positions that are ignored take no part: they are 0 afterwards, and the others are averages of one another alone
(normalised convolution), so that what moves in an ignored place neither adds to its neighbours nor dilutes them.
"""

import copy
import math
from collections.abc import Sequence

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
    rows: Tensor | None
    columns: Tensor | None
    share: Tensor | None

    def __init__(self, sigma: float, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.radius = kernel_radius(sigma)
        self.whole = False  # whether it is known that no position is ignored
        offsets = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32)
        weights = torch.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2)
        self.register_buffer("kernel", weights / weights.sum())
        for name in ("rows", "columns", "share"):  # computed once, if at all, and no part of an artifact
            self.register_buffer(name, None, persistent=False)
        self.register_buffer("keep", None if grid is None else torch.ones(grid, dtype=torch.bool))

    def ready(self) -> "Smoothing":
        """The same, with all that does not depend on a map computed once: for who runs it often."""
        ready = copy.deepcopy(self)
        if self.keep is not None:
            ready.rows, ready.columns, ready.share = self._constants(self.keep.shape)
            ready.whole = bool(self.keep.all())
        return ready

    def forward(self, score_map: Tensor) -> Tensor:
        """(b, h, w) float32, both edges larger than the kernel's radius -> the same, smoothed."""
        rows, columns, share = self.rows, self.columns, self.share
        if rows is None or columns is None or share is None:
            rows, columns, share = self._constants(score_map.shape[-2:])
        if self.keep is None or self.whole:
            return rows @ score_map @ columns
        # Multiplied, not selected: a value that is not finite is a fault wherever it is, and must stay one.
        smooth = rows @ (score_map * self.keep) @ columns / share
        return torch.where(self.keep, smooth, score_map * 0)

    def check(self) -> None:
        """Raise ArtifactError where every position is ignored: such a detector would pass everything."""
        if self.keep is not None and not self.keep.any():
            raise ArtifactError("tensor smoothing.keep ignores every position: nothing would ever fail.")

    def _constants(self, size: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """What blurs columns (h, h) and rows (w, w), and how much of each average is of kept positions (h, w)."""
        rows, columns = (self._blur_of(edge) for edge in size)
        if self.keep is None:
            return rows, columns.T, self.kernel.new_ones(())
        kept = self.keep.to(rows.dtype)
        # Against the blur of ones, not against 1: where all is kept, the share is exactly 1 and nothing changes.
        return rows, columns.T, (rows @ kept @ columns.T) / (rows @ torch.ones_like(kept) @ columns.T)

    def _blur_of(self, edge: int) -> Tensor:
        """The blur of one axis as a matrix (edge, edge), its border mirrored."""
        if self.radius == 0:
            return torch.eye(edge, dtype=self.kernel.dtype, device=self.kernel.device)
        basis = torch.eye(edge, dtype=self.kernel.dtype, device=self.kernel.device).unsqueeze(1)
        mirrored = F.pad(basis, (self.radius, self.radius), mode="reflect")  # (edge, 1, edge + 2r)
        return F.conv1d(mirrored, self.kernel.view(1, 1, -1)).squeeze(1).T
