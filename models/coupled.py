"""The coupled-hypersphere scorer: patches described anew, and their distance to a bank of centroids.

CFA (S. Lee, S. Lee and B. C. Song, "CFA: Coupled-Hypersphere-Based Feature Adaptation for Target-Oriented Anomaly
Localization", IEEE Access 10, 2022), which the seed's experiment 2 compares with. Owns the descriptor, the bank
and the score; learning them is `training.fit_coupled`. What was learned is kept in buffers, not parameters:
nothing in an artifact is trainable.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.backbone import Grids
from models.blocks import floats_at_once
from models.errors import ArtifactError
from models.mfcsam import concatenate
from models.neighbours import compare, squared_distances
from models.pooling import pooled_with_zeros

COORDINATES = 2  # CoordConv's row and column; its radius is left out, as CFA does
_KERNEL = 3  # CFA's neighbourhood
_BLOCK = 2**24  # distances at a time: 64 MB


class CoupledConfig(BaseModel):
    """`dimensions` come out of the descriptor, `vectors` are in the bank, `neighbours` of them make a score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["coupled"] = "coupled"
    dimensions: Annotated[int, Field(ge=1, le=4096)]
    vectors: Annotated[int, Field(ge=1, le=2**18)]
    neighbours: Annotated[int, Field(ge=1, le=64)] = 3

    @model_validator(mode="after")
    def _enough_vectors(self) -> "CoupledConfig":
        if self.neighbours > self.vectors:
            raise ValueError(f"a bank of {self.vectors} vectors has no {self.neighbours} neighbours")
        return self


def patches(levels: Sequence[Tensor]) -> Tensor:
    """What the descriptor sees at each position: levels (b, c_i, h_i, w_i) -> (b, p, d + 2) float32.

    Each level is average pooled over 3x3 positions, zeros beyond the border among them as in CFA's code, all are
    joined on the first one's grid, and the position's row and column in [-1, 1] are added last.
    """
    joined = concatenate(pooled_with_zeros([level.float() for level in levels], _KERNEL))  # (b, d, h, w)
    b, _, h, w = joined.shape
    rows = torch.linspace(-1, 1, h, device=joined.device).view(1, 1, h, 1).expand(b, 1, h, w)
    columns = torch.linspace(-1, 1, w, device=joined.device).view(1, 1, 1, w).expand(b, 1, h, w)
    return torch.cat([joined, rows, columns], dim=1).flatten(2).transpose(1, 2)


def nearest(described: Tensor, bank: Tensor, count: int) -> Tensor:
    """Squared distances to the `count` nearest of the bank: (k, d'), (m, d') -> (k, count), ascending.

    Differentiable in `described`; which are the nearest is taken as given.
    """
    with torch.no_grad():
        origin = bank.mean(dim=0)
        chosen = compare(described - origin, bank - origin).topk(count, dim=1, largest=False).indices
    return squared_distances(described, bank[chosen]).sort(dim=1).values


class Coupled(nn.Module):
    """A 1x1 CoordConv and the bank of centroids near which it puts good patches; zero until fitted or loaded.

    `channels` and `grids` are those of the three levels; the map has the first one's grid. Buffers: `weight`
    (d', d + 2) and `bias` (d',) float32, the coordinates' weights last; `bank` (m, d') float16. The bank costs no
    accuracy in half precision, since it is rounded before the descriptor is trained towards it.
    """

    weight: Tensor
    bias: Tensor
    bank: Tensor

    def __init__(self, config: CoupledConfig, channels: tuple[int, int, int], grids: Grids) -> None:
        super().__init__()
        height, width = grids[0]
        if config.vectors > height * width:
            raise ValueError(f"a bank has at most one vector a position, {height * width}, not {config.vectors}")
        self.grid = (height, width)
        self.neighbours = config.neighbours
        self.register_buffer("weight", torch.zeros(config.dimensions, sum(channels) + COORDINATES))
        self.register_buffer("bias", torch.zeros(config.dimensions))
        self.register_buffer("bank", torch.zeros(config.vectors, config.dimensions, dtype=torch.float16))

    def embed(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (b, c_i, h_i, w_i) -> the descriptor's output at each position, (b, p, d') float32."""
        if levels[0].shape[-2:] != self.grid:
            raise ValueError(f"the first level's grid is {tuple(levels[0].shape[-2:])}, not {self.grid}")
        return F.linear(patches(levels), self.weight, self.bias)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels -> the score at each position, (b, h, w) float32, >= 0.

        With D_1 <= ... <= D_K the distances to the nearest centroids, it is softmin(D)_1·D_1: a patch that lies
        clearly nearest to one centroid keeps its distance, one that lies between several keeps a K-th of it.
        """
        bank = self.bank.float()
        parts = zip(*(level.split(self._at_once(level.device)) for level in levels), strict=True)
        scores = [self._scores(self.embed(part).flatten(0, 1), bank) for part in parts]  # (images * p,) each
        return torch.cat(scores).view(-1, *self.grid)

    def check(self) -> None:
        """Raise ArtifactError where the buffers cannot have been fitted: zeros would give every part one score."""
        if not self.weight[:, :-COORDINATES].any(dim=1).all():
            raise ArtifactError("tensor scorer.weight has rows that look at no feature: it was never fitted.")
        if not self.bank.any(dim=1).all():
            raise ArtifactError("tensor scorer.bank holds vectors of zeros: it was never fitted.")

    def _at_once(self, device: torch.device) -> int:
        """Images: on a CPU one, whose patches take 22 MB with wide_resnet50_2 at 224 px."""
        each = self.grid[0] * self.grid[1] * self.weight.shape[1]
        return max(1, floats_at_once(device, otherwise=each) // each)

    def _scores(self, described: Tensor, bank: Tensor) -> Tensor:
        """(p, d') -> (p,)."""
        row = max(len(bank), self.neighbours * bank.shape[1])  # a patch's distances, or its neighbours
        blocks = described.split(max(1, floats_at_once(bank.device, otherwise=_BLOCK) // row))
        distances = torch.cat([nearest(block, bank, self.neighbours) for block in blocks]).sqrt()  # (p, K)
        return F.softmin(distances, dim=1)[:, 0] * distances[:, 0]
