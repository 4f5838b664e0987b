"""The compact Gaussian scorer: one Gaussian per position in r directions instead of d² numbers (seed, steps 5.2, 6).

The covariance of position p is shrunk towards the average of all positions, Σ_p = (1-λ)S_p + λ(S̄ + εI). Whitened
once for all positions by W = (S̄ + εI)^-½ it is λI plus something of low rank, so with the leading eigenpairs
(s_j, u_j) of (1-λ)·W·S_p·W, by Woodbury's identity,

    M² = (‖z‖² - Σ_j s_j/(s_j + λ)·(u_jᵀz)²) / λ,    z = W(y - μ_p)

exactly if no eigenpair with s_j > 0 is left out (docs/method.md). Centring and whitening are linear, as upsampling
is, so both are done on each level's own grid. The factors s_j/(s_j + λ) are kept as lengths of the directions.

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
from models.pooling import pooled
from models.products import product

Pooling = Literal[1, 3, 5, 7]

_BLOCK = 2**19  # floats at a time where something is turned into float32: 2 MB
_ROUNDING = 1e-2  # what half precision can add to a direction's length, generously


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


def residual(z: Tensor, directions: Tensor, corrections: Tensor, *, shrinkage: float) -> Tensor:
    """M, (p, b) of at least float32, of whitened features z (p, b, k) under each position's directions (p, k, r).

    Directions have the length sqrt(s/(s + λ)) < 1, and `corrections` (p, r) multiply their squared lengths: what half
    precision took from them, of which s/λ times as much would end up in M². Products are in z's precision: one batched
    product where the directions have it too, else a block of positions at a time.
    """
    along = torch.bmm(z, directions) if z.dtype == directions.dtype else _in_blocks(z, directions)  # (p, b, r)
    wide = torch.promote_types(z.dtype, torch.float32)
    explained = torch.bmm(along.to(wide).square(), corrections.to(wide).unsqueeze(2)).squeeze(2)
    # In blocks, because each is turned into float32 first, and should not leave the cache for that.
    blocks = z.split(max(1, _BLOCK // z[0].numel()))
    length = torch.cat([torch.linalg.vector_norm(some, dim=2, dtype=wide) for some in blocks])
    return ((length.square() - explained).clamp_min(0) / shrinkage).sqrt()


def _in_blocks(z: Tensor, directions: Tensor) -> Tensor:
    step = max(1, _BLOCK // (directions.shape[1] * directions.shape[2]))
    blocks = zip(z.split(step), directions.split(step), strict=True)
    return torch.cat([torch.bmm(some, stored.to(z.dtype)) for some, stored in blocks])


def filled_rows(whitening: Tensor) -> int:
    """Up to which row a whitening (k, c) holds anything."""
    used = whitening.any(dim=1).nonzero()
    return int(used[-1]) + 1 if len(used) else 0


class CompactGaussian(nn.Module):
    """Means, shared whitening and each position's directions; zero until fitted or loaded.

    Buffers: `mean1..3` (c_l, h_l, w_l) float32, of the pooled levels; `whitening1..3` (k, c_l) float32, the parts of
    one (k, d) map; `directions` (p, k, r) float16, halved because they are nearly all of an artifact, and their
    `corrections` (p, r) float32. What that does to scores: `python benchmarks/half_precision.py`.
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
        for level, (c, (h, w)) in enumerate(zip(channels, grids, strict=True), start=1):
            self.register_buffer(f"mean{level}", torch.zeros(c, h, w))
            self.register_buffer(f"whitening{level}", torch.zeros(config.dimensions, c))
        p = self.grid[0] * self.grid[1]
        self.register_buffer("directions", torch.zeros(p, config.dimensions, config.rank, dtype=torch.float16))
        self.register_buffer("corrections", torch.ones(p, config.rank))

    @property
    def means(self) -> tuple[Tensor, Tensor, Tensor]:
        """The means of the three pooled levels."""
        return self.mean1, self.mean2, self.mean3

    @property
    def whitenings(self) -> tuple[Tensor, Tensor, Tensor]:
        """The whitening of the three levels."""
        return self.whitening1, self.whitening2, self.whitening3

    def compute_in(self, dtype: torch.dtype) -> "CompactGaussian":
        """The same on its device, for scoring alone: products in `dtype`, and none with what is zero."""
        ready = copy.deepcopy(self, {id(buffer): buffer for buffer in self.buffers()})  # which are shared
        ready.dtype = dtype
        for level, (mean, whitening, rows) in enumerate(
            zip(self.means, self.whitenings, map(filled_rows, self.whitenings), strict=True), start=1
        ):
            filled = self.config.dimensions if level == len(self.channels) else rows
            setattr(ready, f"whitening{level}", whitening[:filled].to(dtype))
            setattr(ready, f"mean{level}", mean.permute(1, 2, 0).contiguous().permute(2, 0, 1))  # as levels lie
        if dtype != torch.float32:  # that would be twice the memory: it takes them block by block
            # A direction's numbers side by side: bfloat16 products of several pictures take two thirds of the time.
            ready.directions = self.directions.to(dtype).transpose(1, 2).contiguous().transpose(1, 2)
        return ready

    def whiten(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (b, c_l, h_l, w_l) -> z (p, b, k): centred, whitened on their own grids, upsampled and added.

        The coarsest level comes first: it fills all k dimensions, a finer one those that its whitening has.
        """
        if levels[0].shape[-2:] != self.grid:
            raise ValueError(f"the first level's grid is {tuple(levels[0].shape[-2:])}, not {self.grid}")
        near = pooled(levels, self.config.pooling)
        parts = [self._part(*each) for each in zip(near, self.means, self.whitenings, strict=True)]
        z = parts[-1]
        for part in reversed(parts[:-1]):
            z[..., : part.shape[-1]] += part
        return z.flatten(1, 2).transpose(0, 1)

    def _part(self, level: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
        """A level's share of z, (b, h, w, k'). Channels lie last throughout."""
        centred = (level.float() - mean).permute(0, 2, 3, 1).contiguous()  # (b, h_l, w_l, c_l)
        b, height, width, c = centred.shape
        part = product(centred.to(self.dtype).view(-1, c), whitening).view(b, height, width, -1)
        if (height, width) == self.grid:
            return part
        fine = F.interpolate(part.permute(0, 3, 1, 2), size=list(self.grid), mode="bilinear", align_corners=False)
        return fine.permute(0, 2, 3, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels -> Mahalanobis distance at each position, (b, h, w) float32."""
        distances = residual(self.whiten(levels), self.directions, self.corrections, shrinkage=self.config.shrinkage)
        return distances.T.reshape(-1, *self.grid)

    def check(self) -> None:
        """Raise ArtifactError where the buffers cannot come from a fit: zeros would pass everything."""
        # Not every channel: one that never varied may be among the dimensions that are left out.
        if not all(whitening.any() for whitening in self.whitenings):
            raise ArtifactError("a tensor scorer.whitening holds nothing but zeros: it was never fitted.")
        if self.config.shrinkage < 1 and not self.directions.any():
            raise ArtifactError("tensor scorer.directions holds nothing but zeros: it was never fitted.")
        if ((self.corrections - 1).abs() > _ROUNDING).any():
            raise ArtifactError("tensor scorer.corrections must be 1 but for the rounding of half precision.")
        longest = float(torch.linalg.vector_norm(self.directions, dim=1, dtype=torch.float32).max())
        if longest > 1 + _ROUNDING:
            raise ArtifactError(
                f"tensor scorer.directions holds a direction of length {longest:.3g}; none is longer than 1."
            )
