"""What is in the memory bank (PatchCore: Roth et al., CVPR 2022): a coreset of the good images' patches.

Patches are compared in a random projection of few dimensions, which keeps distances nearly (Johnson and
Lindenstrauss), so that all can be held in memory at once; where even those would exceed 1 GiB, each image gives
only a random part of its patches. Whole vectors are read for those alone that were taken.

Out of sample, each image is scored against the bank less the vectors that came from it. That is slightly too high:
the others' vectors were chosen with it there, so some that resemble it were left out.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from models.backbone import Grids
from models.errors import RecipeError
from models.memory_bank import Level, Match, MemoryBank, MemoryBankConfig, ascending, nearest, reweighted
from training.arrays import Indices
from training.coreset import k_center
from training.distances import Distances
from training.features import Features
from training.fields import Section
from training.progress import Progress

_POINT_BYTES = 2**30  # for the projected patches: 2 million of 128 dimensions
_BATCH = 16


class MemoryBankSection(Section):
    """PatchCore on `levels`. A bank of `share` of all patches, chosen in `projection` dimensions (in all, if there
    are no more), and the nearest good patch's `neighbours` to re-weight an image's scores with (1: not at all).

    `max_vectors` bounds the artifact (2 bytes a channel each) and the time an image takes, which grows with both.
    """

    name: Literal["memory_bank"] = "memory_bank"
    levels: tuple[Level, ...] = (2, 3)
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    max_vectors: Annotated[int, Field(ge=2, le=100_000)] = 25_000
    projection: Annotated[int, Field(ge=1, le=1024)] = 128
    neighbours: Annotated[int, Field(ge=1, le=100)] = 9

    @field_validator("levels")
    @classmethod
    def _levels_ascend(cls, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        return ascending(levels)

    def config(self, images: int, grids: Grids) -> MemoryBankConfig:
        """The scorer for that many images whose three levels have these grids."""
        height, width = grids[self.levels[0] - 1]
        wanted = round(self.share * images * height * width)
        vectors = max(2, min(wanted, self.max_vectors))
        return MemoryBankConfig(vectors=vectors, levels=self.levels, neighbours=self.neighbours)


@torch.inference_mode()
def fit_memory_bank(
    scorer: MemoryBank,
    features: Features,
    section: MemoryBankSection,
    *,
    seed: int,
    folds: Indices | None,
    device: torch.device,
    progress: Progress,
) -> Distances:
    """Fill the scorer's bank; both kinds of distances if `folds` are given (whatever they are), else none.

    Deterministic given `seed`. Vectors lie in the bank in the order of their images. Raises RecipeError if the
    features do not fit in half precision, or, when distances are wanted, if all of the bank is from one image.
    """
    count = len(scorer.vectors)
    with progress.step("memory bank", count) as step:
        points, kept = _points(scorer, features, section.projection, seed=seed, device=device)
        taken = k_center(points, count, seed=seed, advance=lambda by: step.advance(by=by)).sort().values.cpu()
    sources = taken // kept.shape[1]  # (m,) the image of each vector
    positions = kept.flatten()[taken]
    _fill(scorer, features, sources, positions, device=device)
    if folds is None:
        return Distances(in_sample=None, out_of_sample=None)
    return _distances(scorer, features, sources, device=device, progress=progress)


def _patches(scorer: MemoryBank, features: Features, device: torch.device) -> Iterator[Tensor]:
    """Patches of the images in turn, some images at a time: (b, p, d) on `device`."""
    for levels in features.batches(_BATCH):
        yield scorer.embed([level.to(device) for level in levels])


def _points(
    scorer: MemoryBank, features: Features, projection: int, *, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Patches to choose from, projected (n·k, projection) on `device`, and where they lie in their image (n, k)."""
    n, p, d = features.count, scorer.grid[0] * scorer.grid[1], scorer.dimensions
    generator = torch.Generator().manual_seed(seed)
    onto = None
    if projection < d:
        onto = (torch.randn(d, projection, generator=generator) / projection**0.5).to(device)
    width = min(projection, d)
    k = max(1, min(p, _POINT_BYTES // (4 * width * n)))
    kept = torch.stack([torch.randperm(p, generator=generator)[:k].sort().values for _ in range(n)])
    points = torch.empty(n * k, width, device=device)
    done = 0
    for y in _patches(scorer, features, device):
        places = kept[done : done + len(y)].to(device)  # (b, k)
        some = y.gather(1, places[:, :, None].expand(-1, -1, d)).flatten(0, 1)  # (b·k, d)
        points[done * k : done * k + len(some)] = some if onto is None else some @ onto
        done += len(y)
    if not points.isfinite().all():
        raise RecipeError("The features of the good pictures are not finite: look for what is wrong in --weights.")
    points -= points.mean(dim=0)  # what all have in common would drown small distances in rounding
    return points, kept


def _fill(scorer: MemoryBank, features: Features, sources: Tensor, positions: Tensor, *, device: torch.device) -> None:
    first = 0
    for y in _patches(scorer, features, device):
        here = (sources >= first) & (sources < first + len(y))
        scorer.vectors[here] = y[(sources[here] - first).to(device), positions[here].to(device)].half().cpu()
        first += len(y)
    if not scorer.vectors.isfinite().all():
        raise RecipeError(
            "The features are too large for the memory bank's half precision, or are not finite. "
            "Use weights other than random ones, or another scorer."
        )


def _distances(
    scorer: MemoryBank, features: Features, sources: Tensor, *, device: torch.device, progress: Progress
) -> Distances:
    """Maps of all images against the bank, and against the bank less their own vectors."""
    n, count, neighbours = features.count, len(sources), scorer.config.neighbours
    starts = torch.searchsorted(sources, torch.arange(n + 1)).tolist()  # sources ascend
    bank = scorer.vectors.to(device)
    inside, outside = torch.empty(n, *scorer.grid), torch.empty(n, *scorer.grid)
    with progress.step("distances", n) as step:
        images = (image for batch in _patches(scorer, features, device) for image in batch.split(1))
        for i, y in enumerate(images):  # (1, p, d)
            own = slice(starts[i], starts[i + 1])
            if own.stop - own.start == count:
                raise RecipeError(
                    f"All {count} vectors of the memory bank come from one image, so it cannot be scored without "
                    "its own: raise the scorer's share or max_vectors, or give more images."
                )
            others = nearest(y[0], bank, without=own)
            outside[i] = reweighted(y, others, bank, neighbours=neighbours, without=own).view(scorer.grid).cpu()
            every = _closer(others, nearest(y[0], bank[own]), own.start) if own.start < own.stop else others
            inside[i] = reweighted(y, every, bank, neighbours=neighbours).view(scorer.grid).cpu()
            step.advance()
    return Distances(in_sample=inside, out_of_sample=outside)


def _closer(others: Match, own: Match, start: int) -> Match:
    """The nearer of both; the own ones' places are counted from `start`."""
    is_own = own.distance < others.distance
    return Match(
        torch.where(is_own, own.distance, others.distance), torch.where(is_own, own.vector + start, others.vector)
    )
