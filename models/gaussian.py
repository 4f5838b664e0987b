"""The dense Gaussian scorer: a normal distribution per position, Mahalanobis distance (seed, steps 5.2, 6).

Owns the buffers, their packed form and the distance; estimating them is `training.fit_dense`. With Σ = L·Lᵀ the
whitening W = L⁻¹ is kept, so M² = ‖W(y-μ)‖², a sum of squares that rounding cannot make negative. W is lower
triangular and only that half is stored: d(d+1)/2 floats a position.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.backbone import Grids
from models.blocks import floats_at_once
from models.errors import ArtifactError, RecipeError
from models.mfcsam import concatenate

_BLOCK = 2**20  # floats of unpacked whitening at a time: 4 MB, which stays in a processor's cache


class DenseGaussianConfig(BaseModel):
    """One Gaussian with a full covariance per position, over `channels` selected channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["dense_gaussian"] = "dense_gaussian"
    channels: Annotated[int, Field(ge=1, le=4096)]


def select_channels(total: int, wanted: int, *, seed: int) -> Tensor:
    """PaDiM's random selection: `wanted` distinct channels of `total`, ascending, (wanted,) int64.

    All of them, (total,), where there are no more than are wanted.
    """
    if wanted < 1:
        raise RecipeError(f"at least one channel must be selected, not {wanted}")
    if wanted >= total:
        return torch.arange(total)
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return drawn[:wanted].sort().values


def _lower(d: int, device: torch.device) -> Tensor:
    """Where the lower triangle of a d x d matrix lies in its d*d numbers, row by row: (d(d+1)/2,) int64."""
    indices = torch.tril_indices(d, d, device=device)
    return indices[0] * d + indices[1]


def pack_lower(matrices: Tensor) -> Tensor:
    """(p, d, d) -> (p, d(d+1)/2): the lower triangles row by row, the diagonal included."""
    return matrices.flatten(1).index_select(1, _lower(matrices.shape[-1], matrices.device))


def unpack_lower(packed: Tensor, d: int) -> Tensor:
    """(p, d(d+1)/2) -> (p, d, d), zero above the diagonal; the inverse of `pack_lower`."""
    return _unpack(packed, _lower(d, packed.device), d)


def _unpack(packed: Tensor, lower: Tensor, d: int) -> Tensor:
    # index_copy_ fills the triangle faster than index_put, masked_scatter_, a gather or a copy per row.
    return packed.new_zeros(len(packed), d * d).index_copy_(1, lower, packed).view(-1, d, d)


def _blocks(p: int, d: int, device: torch.device) -> Iterator[slice]:
    step = max(1, floats_at_once(device, otherwise=_BLOCK) // (d * d))
    return (slice(start, start + step) for start in range(0, p, step))


def covariance_factor(covariance: Tensor) -> Tensor:
    """Regularised covariances (p, d, d) float64 -> whitenings W = L⁻¹ with Σ = L·Lᵀ, the same shape and type.

    In float64: it costs a fit little, and the covariance of fewer images than channels, kept regular by ε alone, is
    near singular. Only Σ's lower triangle is read. Raises RecipeError if a Σ is not positive definite.
    """
    factor, failed = torch.linalg.cholesky_ex(covariance.double())
    bad = (failed != 0) | ~factor.diagonal(dim1=1, dim2=2).isfinite().all(dim=1)
    if bad.any():
        raise RecipeError(
            f"the covariance at {int(bad.sum())} of {len(bad)} positions looked at is not positive definite: "
            "raise scorer.epsilon, or look for features that are not finite"
        )
    identity = torch.eye(covariance.shape[-1], dtype=torch.float64, device=covariance.device)
    whitening: Tensor = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return whitening


def mahalanobis(y: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """Distance of y (b, p, d) from each position's Gaussian: ‖W_p(y_p - μ_p)‖, (b, p), unsquared.

    mean (p, d), whitening packed (p, d(d+1)/2). W is unpacked anew, a cache-sized block of positions at a
    time: at p = 3136, d = 152 on 4 CPU threads this takes 15 ms for one image and 28 ms for eight. An
    unpacked W that is kept takes 7 and 14 ms, but 290 MB more memory (3.8 GB at d = 550) and care that it is
    never stale. Measured by `python benchmarks/gaussian_unpacking.py`.
    """
    p, d = mean.shape
    if y.shape[1:] != mean.shape:
        raise ValueError(f"features of shape {tuple(y.shape)} do not fit a mean of shape {tuple(mean.shape)}")
    lower = _lower(d, whitening.device)
    centred = (y - mean).permute(1, 2, 0)  # (p, d, b)
    squared = [
        torch.bmm(_unpack(whitening[block], lower, d), centred[block]).square().sum(dim=1)
        for block in _blocks(p, d, whitening.device)
    ]
    return torch.cat(squared).sqrt().T  # (b, p)


class DenseGaussian(nn.Module):
    """Mean and whitening of the selected channels at each position, zero until fitted or loaded.

    `channels` and `grids` are those of the three levels; the map has the first one's grid. Buffers: `indices`
    (d,) int64, ascending, into the levels' concatenated channels; `mean` (p, d) float32; `whitening`
    (p, d(d+1)/2) float32, packed. Nothing is derived from them and kept, so copying and loading are safe; but
    see `settled`.
    """

    indices: Tensor
    mean: Tensor
    whitening: Tensor
    pick1: Tensor | None
    pick2: Tensor | None
    pick3: Tensor | None

    def __init__(self, config: DenseGaussianConfig, channels: tuple[int, int, int], grids: Grids) -> None:
        super().__init__()
        if config.channels > sum(channels):
            raise ValueError(f"{config.channels} channels cannot be selected out of {sum(channels)}")
        self.config = config
        self.channels = tuple(channels)
        self.grid = (grids[0][0], grids[0][1])
        p, d = self.grid[0] * self.grid[1], config.channels
        self.register_buffer("indices", torch.arange(d))
        self.register_buffer("mean", torch.zeros(p, d))
        self.register_buffer("whitening", torch.zeros(p, d * (d + 1) // 2))
        for level in range(1, len(self.channels) + 1):
            self.register_buffer(f"pick{level}", None)

    def settled(self) -> "DenseGaussian":
        """The same, for scoring alone: it looks up here, once, which channels it takes from which level.

        How many those are decides shapes, for which a GPU would be waited for at every batch.
        """
        ready = copy.deepcopy(self, {id(buffer): buffer for buffer in self.buffers()})  # which are shared
        for level, pick in enumerate(self._picks(), start=1):
            ready.register_buffer(f"pick{level}", pick, persistent=False)
        return ready

    def _picks(self) -> tuple[Tensor, Tensor, Tensor]:
        """The selected channels of each level, counted from its first."""
        if self.pick1 is not None and self.pick2 is not None and self.pick3 is not None:
            return self.pick1, self.pick2, self.pick3
        first, second, third = self.channels
        starts = 0, first, first + second
        ends = first, first + second, first + second + third
        one, two, three = (
            self.indices[(self.indices >= start) & (self.indices < end)] - start
            for start, end in zip(starts, ends, strict=True)
        )
        return one, two, three

    def embed(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (b, c_i, h_i, w_i) -> the selected channels at each position, (b, p, d) float32.

        The same as selecting from `concatenate(levels)`, but channels are selected before they are upsampled.
        """
        if levels[0].shape[-2:] != self.grid:
            raise ValueError(f"the first level's grid is {tuple(levels[0].shape[-2:])}, not {self.grid}")
        picked = [level.index_select(1, pick).float() for level, pick in zip(levels, self._picks(), strict=True)]
        return concatenate(picked).flatten(2).transpose(1, 2)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels -> Mahalanobis distance at each position, (b, h, w) float32."""
        return mahalanobis(self.embed(levels), self.mean, self.whitening).view(-1, *self.grid)

    def check(self) -> None:
        """Raise ArtifactError where the selected channels do not exist, or the whitening was never fitted."""
        indices, total = self.indices, sum(self.channels)
        if indices[0] < 0 or indices[-1] >= total or (indices[1:] <= indices[:-1]).any():
            raise ArtifactError(f"tensor scorer.indices must hold ascending channel numbers from 0 to {total - 1}.")
        row = torch.arange(len(indices))
        if (self.whitening[:, row * (row + 3) // 2] <= 0).any():
            raise ArtifactError("tensor scorer.whitening has a diagonal that is not positive: it was never fitted.")
