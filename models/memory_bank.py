"""The memory bank scorer: distance of each patch to the nearest good one (PatchCore: Roth et al., CVPR 2022).

Owns the bank and the distances to it; choosing what is in it is `training.fit_memory_bank`. Unlike the paper's,
the re-weighting of the image score multiplies the image's whole map, so that the map's maximum stays its score.
The bank is kept in half precision and computed with in float32, a block at a time.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from models.backbone import Grids
from models.blocks import floats_at_once
from models.errors import ArtifactError
from models.mfcsam import concatenate
from models.neighbours import compare, squared_distances
from models.pooling import pooled_with_zeros

Level = Literal[1, 2, 3]

_NOTHING = slice(0, 0)
_KERNEL = 3  # the paper's neighbourhood
_BLOCK_VECTORS = 1024  # of the bank at a time: in float32, 6 MB at d = 1536
_BLOCK_PATCHES = 1024  # against those: 4 MB of comparisons
_BLOCK_VECTORS_ON_GPU = 2**14  # 100 MB at d = 1536


class MemoryBankConfig(BaseModel):
    """A bank of `vectors` patches of the `levels`, re-weighted over `neighbours` of them (1: not at all)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["memory_bank"] = "memory_bank"
    vectors: Annotated[int, Field(ge=2, le=100_000)]
    levels: tuple[Level, ...] = (2, 3)
    neighbours: Annotated[int, Field(ge=1, le=100)] = 9

    @field_validator("levels")
    @classmethod
    def _levels_ascend(cls, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        return ascending(levels)


def ascending(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """The levels, if there are any, in order and each once; else ValueError."""
    if not levels or list(levels) != sorted(set(levels)):
        raise ValueError(f"levels must be some of 1, 2, 3, in that order and each once, not {list(levels)}")
    return levels


class Match(NamedTuple):
    """Each patch's nearest vector: how far it is (q,) float32, and its place in the bank (q,) int64."""

    distance: Tensor
    vector: Tensor


def nearest(patches: Tensor, bank: Tensor, *, without: slice = _NOTHING) -> Match:
    """The vector of the bank (m, d) nearest to each patch (q, d), by Euclidean distance, less those of `without`.

    The distance to the one found is computed from their difference, so that it cannot be negative or NaN. Memory: one
    block of comparisons and two copies of the patches, whatever m is. Infinity where `without` leaves no vector.
    """
    origin = _origin(bank)
    moved = patches - origin
    lowest = patches.new_full((len(patches),), torch.inf)
    index = torch.zeros(len(patches), dtype=torch.int64, device=patches.device)
    step = _patches_at_once(patches.device)
    for start, vectors in _blocks(bank, origin):
        for first in range(0, len(patches), step):
            rows = slice(first, first + step)
            value, place = _compare_without(moved[rows], vectors, _shift(without, start)).min(dim=1)
            closer = value < lowest[rows]
            lowest[rows] = torch.where(closer, value, lowest[rows])
            index[rows] = torch.where(closer, place + start, index[rows])
    distance = (patches - bank[index].float()).square_().sum(dim=1).sqrt()
    return Match(distance.masked_fill(lowest == torch.inf, torch.inf), index)


def reweighting(patches: Tensor, match: Match, bank: Tensor, *, neighbours: int, without: slice = _NOTHING) -> Tensor:
    """Weights w (q,) in [1 - 1/k, 1) of patches (q, d) whose nearest vector v is known (the paper's equation 7).

    w = 1 - exp(‖y - v‖) / Σ_u exp(‖y - u‖) over the k `neighbours` of v in the bank, v itself among them: it is
    near 1 where v is a rare good patch, far from its neighbours, and as many as there are if the bank has fewer.
    """
    origin = _origin(bank)
    anchors = bank[match.vector].float() - origin
    compared = torch.cat(
        [_compare_without(anchors, vectors, _shift(without, start)) for start, vectors in _blocks(bank, origin)], dim=1
    )  # (q, m)
    compared.scatter_(1, match.vector[:, None], -torch.inf)  # v comes first, even if the bank holds it twice
    values, places = compared.topk(min(neighbours, compared.shape[1]), dim=1, largest=False)
    distances = squared_distances(patches, bank[places].float()).sqrt()  # (q, k)
    distances[:, 0] = match.distance
    distances.masked_fill_(values == torch.inf, -torch.inf)  # those of `without` weigh nothing
    share = F.softmax(distances, dim=1)[:, 0]
    alone = (values < torch.inf).sum(dim=1) == 1  # nothing to compare with: as it is
    return torch.where(alone, torch.ones_like(share), 1 - share)


def reweighted(y: Tensor, match: Match, bank: Tensor, *, neighbours: int, without: slice = _NOTHING) -> Tensor:
    """Distances (b, p) of patches y (b, p, d), all of an image times the weight of its farthest patch.

    `match` is that of the b·p patches in a row.
    """
    b, p, _ = y.shape
    distances = match.distance.view(b, p)
    image = torch.arange(b, device=y.device)
    farthest = distances.argmax(dim=1)  # (b,)
    of_farthest = Match(distances[image, farthest], match.vector.view(b, p)[image, farthest])
    weights = reweighting(y[image, farthest], of_farthest, bank, neighbours=neighbours, without=without)
    return distances * weights[:, None]


def _origin(bank: Tensor) -> Tensor:
    """A vector (d,) amid the bank's, the same however much of it is left out."""
    return bank[:_BLOCK_VECTORS].float().mean(dim=0)


def _blocks(bank: Tensor, origin: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Where each block starts, and its vectors less the origin, in float32."""
    step = _vectors_at_once(bank.device)
    for start in range(0, len(bank), step):
        yield start, bank[start : start + step].float() - origin


def _vectors_at_once(device: torch.device) -> int:
    return _BLOCK_VECTORS_ON_GPU if device.type == "cuda" else _BLOCK_VECTORS


def _patches_at_once(device: torch.device) -> int:
    comparisons = floats_at_once(device, otherwise=_BLOCK_PATCHES * _BLOCK_VECTORS)
    return comparisons // _vectors_at_once(device)


def _shift(without: slice, start: int) -> slice:
    """The same vectors, counted from the block's start."""
    return slice(max(without.start - start, 0), max(without.stop - start, 0))


def _compare_without(patches: Tensor, vectors: Tensor, without: slice) -> Tensor:
    """As `compare`, but infinite in the columns of `without`: (q, m)."""
    compared = compare(patches, vectors)
    compared[:, without] = torch.inf
    return compared


class MemoryBank(nn.Module):
    """`vectors` (m, d) float16, good patches, zero until fitted or loaded; d is all channels of the `levels`.

    `grid` (height, width) is the first chosen level's, that of the map. Half precision moves a vector by a
    2048th of its length at most, far less than good parts differ by, and halves the artifact.
    """

    vectors: Tensor

    def __init__(self, config: MemoryBankConfig, channels: tuple[int, int, int], grids: Grids) -> None:
        super().__init__()
        self.config = config
        self.dimensions = sum(channels[level - 1] for level in config.levels)
        self.grid = (grids[config.levels[0] - 1][0], grids[config.levels[0] - 1][1])
        self.register_buffer("vectors", torch.zeros(config.vectors, self.dimensions, dtype=torch.float16))

    def embed(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (b, c_l, h_l, w_l) -> patches of the chosen ones, (b, p, d) float32, on the levels' device.

        Each level is averaged over 3x3 neighbours, zeros beyond the border among them, then joined to the first.
        """
        near = pooled_with_zeros([levels[level - 1].float() for level in self.config.levels], _KERNEL)
        if near[0].shape[-2:] != self.grid:
            raise ValueError(f"the first chosen level's grid is {tuple(near[0].shape[-2:])}, not {self.grid}")
        return concatenate(near).flatten(2).transpose(1, 2).contiguous()

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels -> re-weighted distance to the nearest good patch at each position, (b, h, w) float32."""
        y = self.embed(levels)
        match = nearest(y.flatten(0, 1), self.vectors)
        return reweighted(y, match, self.vectors, neighbours=self.config.neighbours).view(-1, *self.grid)

    def check(self) -> None:
        """Raise ArtifactError where the bank was never fitted: its vectors are one and the same."""
        if (self.vectors == self.vectors[0]).all():
            raise ArtifactError("tensor scorer.vectors holds the same vector everywhere: it was never fitted.")
