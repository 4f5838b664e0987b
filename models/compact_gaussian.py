"""The compact Gaussian scorer: one Gaussian per position in r directions instead of d² numbers (seed, steps 5.2, 6).

The covariance of position p is shrunk towards the average of all positions, Σ_p = (1-λ)S_p + λ(S̄ + εI). Whitened
once for all positions by W = (S̄ + εI)^-½ it is λI plus something of low rank, so with the leading eigenpairs
(s_j, u_j) of (1-λ)·W·S_p·W, by Woodbury's identity,

    M² = (‖z‖² - Σ_j s_j/(s_j + λ)·(u_jᵀz)²) / λ,    z = W(y - μ_p)

exactly if no eigenpair with s_j > 0 is left out (docs/method.md). Centring and whitening are linear, as upsampling
is, so both are done on each level's own grid. Nearly all of an artifact is directions: they are kept in steps of a
127th of their largest number, and what makes s_j/(s_j + λ) of a squared length beside them.

W may be turned: M does not change. A fit turns it upper triangular, so that the first level, whose grid is by far the
finest, fills c_1 of z's dimensions, and the second c_1 + c_2: a third of the products, and of what is upsampled.
"""

import copy
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.backbone import Grids
from models.errors import ArtifactError
from models.loops.centred import centred
from models.loops.one_pass import distances, interleaved
from models.loops.ready import ready_for
from models.pooling import pooled
from models.products import product
from models.residuals import residual, residual_in_half

Pooling = Literal[1, 3, 5, 7]
# As buffers are described below, as `residual_in_half` takes them, or as `models.loops.one_pass` does.
_Layout = Literal["stored", "unit", "interleaved"]

_BLOCK = 2**19  # floats at a time where something is turned into float32: 2 MB
_NOTHING = 1e-12  # a length
_ROUNDING = 1e-2  # what rounding can add to a direction's length, generously


class CompactGaussianConfig(BaseModel):
    """A Gaussian per position in `rank` directions of a whitened space of `dimensions` shared by all.

    `shrinkage` is λ; `pooling` the edge of the neighbourhood that is averaged on each level first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["gaussian"] = "gaussian"
    dimensions: Annotated[int, Field(ge=1, le=4096)]
    rank: Annotated[int, Field(ge=1, le=4096)]
    shrinkage: Annotated[float, Field(gt=0, le=1)]
    pooling: Pooling


def filled_rows(whitening: Tensor) -> int:
    """Up to which row a whitening (k, c) holds anything."""
    used = whitening.any(dim=1).nonzero()
    return int(used[-1]) + 1 if len(used) else 0


class CompactGaussian(nn.Module):
    """Means, shared whitening and each position's directions; zero until fitted or loaded.

    Buffers: `mean1..3` (c_l, h_l, w_l) float32, of the pooled levels; `whitening1..3` (k, c_l) float32, the parts of
    one (k, d) map; `directions` (p, k, r) int8, float16 in older artifacts, and their `corrections` (p, r) float32.
    What that does to scores: `python benchmarks/rounded_directions.py`.
    """

    mean1: Tensor
    mean2: Tensor
    mean3: Tensor
    whitening1: Tensor
    whitening2: Tensor
    whitening3: Tensor
    directions: Tensor
    corrections: Tensor

    def __init__(self, config: CompactGaussianConfig, channels: tuple[int, int, int], grids: Grids) -> None:
        super().__init__()
        if config.dimensions > sum(channels):
            raise ValueError(f"{sum(channels)} channels do not make {config.dimensions} dimensions")
        if config.rank > config.dimensions:
            raise ValueError(f"there is no rank {config.rank} in {config.dimensions} dimensions")
        self.config = config
        self.channels = tuple(channels)
        self.grid = (grids[0][0], grids[0][1])
        self.dtype = torch.float32  # of the products
        self.layout: _Layout = "stored"  # of directions and corrections
        for level, (c, (h, w)) in enumerate(zip(channels, grids, strict=True), start=1):
            self.register_buffer(f"mean{level}", torch.zeros(c, h, w))
            self.register_buffer(f"whitening{level}", torch.zeros(config.dimensions, c))
        p = self.grid[0] * self.grid[1]
        self.register_buffer("directions", torch.zeros(p, config.dimensions, config.rank, dtype=torch.int8))
        self.register_buffer("corrections", torch.ones(p, config.rank))

    @property
    def means(self) -> tuple[Tensor, Tensor, Tensor]:
        """The means of the three pooled levels."""
        return self.mean1, self.mean2, self.mean3

    @property
    def whitenings(self) -> tuple[Tensor, Tensor, Tensor]:
        """The whitening of the three levels."""
        return self.whitening1, self.whitening2, self.whitening3

    def compute_in(self, dtype: torch.dtype, device: torch.device) -> "CompactGaussian":
        """The same, for scoring alone on `device`, to which it is yet to be moved: products in `dtype`.

        None with what is zero. On a CPU compiled loops go through the directions once; those of older artifacts torch
        multiplies, as it does elsewhere.
        """
        if self.layout != "stored":
            raise ValueError("it is made for scoring already")
        ready = copy.deepcopy(self, {id(buffer): buffer for buffer in self.buffers()})  # which are shared
        ready.dtype = dtype
        for level, (mean, whitening, rows) in enumerate(
            zip(self.means, self.whitenings, map(filled_rows, self.whitenings), strict=True), start=1
        ):
            filled = self.config.dimensions if level == len(self.channels) else rows
            setattr(ready, f"whitening{level}", whitening[:filled].to(dtype))
            setattr(ready, f"mean{level}", mean.permute(1, 2, 0).contiguous().permute(2, 0, 1))  # as levels lie
        if device.type == "cpu" and self.directions.dtype == torch.int8 and ready_for(dtype):
            ready.directions, ready.corrections = interleaved(self.directions, self.corrections)
            ready.layout = "interleaved"
        elif dtype != torch.float32:  # that would be twice the memory: it takes them block by block
            ready.directions, ready.corrections = self._of_unit_length(dtype)
            ready.layout = "unit"
        return ready

    def _of_unit_length(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Directions and variances as `residual_in_half` takes them, and a direction's numbers side by side."""
        p, k, r = self.directions.shape
        directions = torch.empty(p, r, k, dtype=dtype, device=self.directions.device).transpose(1, 2)
        step = max(1, _BLOCK // (k * r))
        lengths = []
        for unit, stored in zip(directions.split(step), self.directions.split(step), strict=True):
            exact = stored.float()
            length = torch.linalg.vector_norm(exact, dim=1)  # (p', r)
            unit.copy_(exact / length.clamp_min(_NOTHING).unsqueeze(1))
            lengths.append(length)
        return directions, (1 - torch.cat(lengths).square() * self.corrections).clamp_min(0)

    def whiten(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (b, c_l, h_l, w_l) -> z (p, b, k): centred, whitened on their own grids, upsampled and added.

        The coarsest level comes first: it fills all k dimensions, a finer one those that its whitening has.
        """
        self._check_grid(levels)
        near = pooled([level.float() for level in levels], self.config.pooling)
        parts = [self._part(*each) for each in zip(near, self.means, self.whitenings, strict=True)]
        z = parts[-1]
        for part in reversed(parts[:-1]):
            z[..., : part.shape[-1]] += part
        return z.flatten(1, 2).transpose(0, 1)

    def _part(self, level: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
        """A level's share of z, (b, h, w, k'). Channels lie last throughout."""
        part = self._whitened((level - mean).permute(0, 2, 3, 1).contiguous(), whitening)
        if part.shape[1:3] == self.grid:
            return part
        fine = F.interpolate(part.permute(0, 3, 1, 2), size=list(self.grid), mode="bilinear", align_corners=False)
        return fine.permute(0, 2, 3, 1)

    def _whitened(self, near: Tensor, whitening: Tensor) -> Tensor:
        """A level, pooled and centred, (b, h, w, c) -> (b, h, w, k')."""
        return product(near.to(self.dtype).flatten(0, 2), whitening).view(*near.shape[:3], -1)

    def _check_grid(self, levels: Sequence[Tensor]) -> None:
        if levels[0].shape[-2:] != self.grid:
            raise ValueError(f"the first level's grid is {tuple(levels[0].shape[-2:])}, not {self.grid}")

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels -> Mahalanobis distance at each position, (b, h, w) float32."""
        if self.layout == "interleaved":
            return self._in_one_pass(levels)
        score = residual if self.layout == "stored" else residual_in_half
        found = score(self.whiten(levels), self.directions, self.corrections, shrinkage=self.config.shrinkage)
        return found.T.reshape(-1, *self.grid)

    def _in_one_pass(self, levels: Sequence[Tensor]) -> Tensor:
        self._check_grid(levels)
        means = [mean.permute(1, 2, 0) for mean in self.means]
        near = centred(levels, means, kernel=self.config.pooling)
        parts = [self._whitened(*each) for each in zip(near, self.whitenings, strict=True)]
        return distances(parts, self.directions, self.corrections, shrinkage=self.config.shrinkage)

    def check(self) -> None:
        """Raise ArtifactError where the buffers cannot come from a fit: zeros would pass everything."""
        # Not every channel: one that never varied may be among the dimensions that are left out.
        if not all(whitening.any() for whitening in self.whitenings):
            raise ArtifactError("a tensor scorer.whitening holds nothing but zeros: it was never fitted.")
        for name, tensor in (("directions", self.directions), ("corrections", self.corrections)):
            if self.config.shrinkage < 1 and not tensor.any():
                raise ArtifactError(f"tensor scorer.{name} holds nothing but zeros: it was never fitted.")
        if (self.corrections < 0).any():
            raise ArtifactError("tensor scorer.corrections holds a negative number.")
        longest = float((self._squared_lengths() * self.corrections).max().sqrt())
        if longest > 1 + _ROUNDING:
            raise ArtifactError(
                f"tensor scorer.directions holds a direction of length {longest:.3g}; none is longer than 1."
            )

    def _squared_lengths(self) -> Tensor:
        """Of the directions as they are kept, (p, r) float32."""
        step = max(1, _BLOCK // self.directions[0].numel())
        return torch.cat([some.float().square().sum(1) for some in self.directions.split(step)])
