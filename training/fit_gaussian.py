"""Fits the compact Gaussian: shared whitening, then each position's leading directions (seed, step 5.2).

Three walks over all pictures: one sums up the average covariance (`training.whitening`), one whitens the coarser levels
on their own grids (`training.whitened`), one goes along the rows of positions and decomposes. Each works on a few
positions at a time. The third walk also scores pictures that a fit has not seen, for as many values of shrinkage and
rank as are asked for: these share one decomposition.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from models.compact_gaussian import CompactGaussian, Pooling
from models.errors import DatasetError
from models.loops import bfloat16_products
from models.residuals import residual
from training.arrays import Indices
from training.deviations import Deviations
from training.distances import Distances
from training.eigenpairs import Leading, iterates
from training.features import Features
from training.fields import Count, OneOrMore, Positive, Section
from training.folds import merged
from training.joining import Block, Joining
from training.parallel import in_parallel
from training.progress import Progress
from training.whitened import whiten
from training.whitening import moments_of, whitenings_of

_STEPS = 127  # from nothing to a direction's largest number, in int8
_MOST_FOLDS = 20  # each costs as many decompositions as the fit itself


class GaussianSection(Section):
    """Seed, step 5.2, compact. Of several values synthetic validation takes the best combination.

    `dimensions` is the share of the whitened space that is kept, `epsilon` what is added to the average covariance.
    """

    name: Literal["gaussian"] = "gaussian"
    rank: OneOrMore[Count] = (32, 16)
    shrinkage: OneOrMore[Annotated[float, Field(gt=0, le=1)]] = (0.03, 0.1)
    pooling: OneOrMore[Pooling] = (3, 1)
    dimensions: Annotated[float, Field(gt=0, le=1)] = 1.0
    epsilon: Positive = 0.01


def shortened(values: Tensor, vectors: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Directions (p, k, r) int8 as the scorer keeps them, and the corrections (p, r) that make s/(s + λ) of their
    squared lengths, s = (1-λ)·values. Both are 0 where s is.
    """
    s = (1 - shrinkage) * values
    wanted = s / (s + shrinkage)
    there = vectors.any(dim=1) & (wanted > 0)
    largest = torch.where(there, vectors.abs().amax(1), torch.inf)
    steps = (vectors * (_STEPS / largest).unsqueeze(1)).round_()
    return steps.to(torch.int8), torch.where(there, wanted / steps.square().sum(1), 0)


@torch.inference_mode()
def fit_gaussian(
    scorer: CompactGaussian,
    features: Features,
    *,
    epsilon: float,
    folds: Indices | None,
    device: torch.device,
    progress: Progress,
) -> Distances:
    """Fit `scorer`, in place, to n >= 2 good pictures.

    `folds` (n,) is the fold of each picture: it is then scored by a Gaussian of the other folds, whitening included.
    More than 20 folds are merged. None: no distances are wanted. Raises RecipeError where the features are not
    usable or there is no room, DatasetError where the pictures are all the same.
    """
    config, count, (height, width) = scorer.config, features.count, scorer.grid
    joining, everyone = Joining(features, config.pooling), np.arange(features.count)
    assigned = np.zeros(count, np.int64) if folds is None else merged(folds, _MOST_FOLDS)
    groups = [np.flatnonzero(assigned == fold) for fold in np.unique(assigned)]

    def whitenings() -> list[Tensor]:  # moments are several times as large, and gone with this
        moments = moments_of(joining, groups, device=device, progress=progress)
        for buffer, mean in zip(scorer.means, moments.means, strict=True):
            buffer.copy_(mean)
        gone = [None] if folds is None else [None, *range(len(groups))]
        matrices = whitenings_of(moments, gone, epsilon=epsilon, dimensions=config.dimensions)
        return [matrix.to(device) for matrix in matrices]

    whole, *blind = whitenings()
    for buffer, part in zip(scorer.whitenings, whole.split(list(scorer.channels)), strict=True):
        buffer.copy_(part.T)
    within, outside = torch.empty(count, height * width), torch.empty(count, height * width)
    # All in the same way: the threshold of a fit comes from those without a fold.
    fewest = count - max(map(len, groups)) if blind else count
    iterated = iterates(fewest, config.dimensions, config.rank)

    def keep(found: Decomposed) -> None:
        here = found.block.positions
        directions, corrections = shortened(found.values, found.vectors, config.shrinkage)
        scorer.directions[here], scorer.corrections[here] = directions.cpu(), corrections.cpu()
        if folds is not None:
            within[:, here] = residual(found.known.float(), directions, corrections, shrinkage=config.shrinkage).T.cpu()

    with progress.step("gaussian", height * width * (1 + len(blind))) as step:
        walk = partial(_walk, joining, rank=config.rank, iterated=iterated)
        for done in walk(whole, known=everyone, asked=everyone[:0], work=keep):
            step.advance(by=done)
        for held, matrix in zip(groups, blind, strict=False):

            def judge(found: Decomposed, held: Indices = held) -> None:
                directions, corrections = shortened(found.values, found.vectors, config.shrinkage)
                unseen = residual(found.asked.float(), directions, corrections, shrinkage=config.shrinkage)
                outside[held, found.block.positions] = unseen.T.cpu()

            known = np.setdiff1d(everyone, held)
            for done in walk(matrix, known=known, asked=held, work=judge):
                step.advance(by=done)
    if config.shrinkage < 1 and not scorer.directions.any():
        raise DatasetError("The good pictures do not differ from each other: give pictures of different parts.")
    if folds is None:
        return Distances(None, None)
    return Distances(within.view(count, height, width), outside.view(count, height, width))


@torch.inference_mode()
def scan(
    features: Features,
    *,
    known: Indices,
    asked: Indices,
    pooling: int,
    settings: Sequence[tuple[float, int]],
    epsilon: float,
    dimensions: int,
    device: torch.device,
    progress: Progress,
) -> Tensor:
    """Raw maps (settings, m, h, w) of the pictures at `asked` under Gaussians of those at `known`.

    `settings` are pairs of shrinkage and rank. Raises RecipeError where the features are not usable or there is no
    room.
    """
    joining = Joining(features, pooling)
    moments = moments_of(joining, [known], device=device, progress=progress)
    (whitening,) = whitenings_of(moments, [None], epsilon=epsilon, dimensions=dimensions)
    height, width = features.grids[0]
    maps = torch.empty(len(settings), len(asked), height * width)
    most = max(rank for _, rank in settings)

    def judge(found: Decomposed) -> None:
        for index, (shrinkage, rank) in enumerate(settings):
            directions, corrections = shortened(found.values[:, :rank], found.vectors[..., :rank], shrinkage)
            distances = residual(found.asked.float(), directions, corrections, shrinkage=shrinkage)
            maps[index][:, found.block.positions] = distances.T.cpu()

    with progress.step(f"settings with pooling {pooling}", height * width) as step:
        iterated = iterates(len(known), dimensions, most)
        for done in _walk(
            joining, whitening.to(device), known=known, asked=asked, rank=most, iterated=iterated, work=judge
        ):
            step.advance(by=done)
    return maps.view(len(settings), len(asked), height, width)


@dataclass(frozen=True)
class Decomposed:
    """A block's leading eigenpairs, values (p, r) and vectors (p, k, r), of z of the `known` pictures, (p, n, k).

    And z of those that are `asked` about, (p, m, k), centred on the mean of the others.
    """

    block: Block
    values: Tensor
    vectors: Tensor
    known: Tensor
    asked: Tensor


def _walk(
    joining: Joining,
    whitening: Tensor,
    *,
    known: Indices,
    asked: Indices,
    rank: int,
    iterated: bool,
    work: Callable[[Decomposed], None],
) -> Iterator[int]:
    """`work` on each block of positions under W (d, k), on the device where that lies; how many are done, each time.

    Where eigenpairs are iterated for, whitening is as rough as the features are, and as that of a judged picture is.
    """
    rough = iterated and joining.features.dtype == torch.bfloat16
    device = whitening.device
    about = Deviations.from_mean(joining, np.concatenate([known, asked]), known=known, device=device)
    whitened = whiten(about, whitening, dtype=torch.bfloat16 if rough else torch.float32)
    if rough:
        bfloat16_products.ready()  # here, and not in each thread

    def row(blocks: list[Block]) -> int:
        leading = Leading(rank, iterated=iterated)  # from one end of the row to the other
        for block in blocks:
            # Half precision ends here, and sums are in float32: small variances would be lost in the rounding of large
            # ones, and a part that lies far out would come to lie at no distance at all.
            z = whitened.z(block)
            seen = z[:, : len(known)]
            work(Decomposed(block, *leading(seen), known=seen, asked=z[:, len(known) :]))
        return joining.features.grids[0][1]

    yield from in_parallel(row, list(joining.rows(len(known) + len(asked), device)), device=device)
