"""Fits the compact Gaussian: shared whitening, then each position's leading directions (seed, step 5.2).

Two walks over blocks of positions, each block with all pictures: one sums up the average covariance
(`training.whitening`), the other whitens and decomposes. Nothing but a block is in memory. The second walk also scores
pictures that a fit has not seen, for as many values of shrinkage and rank as are asked for: these share one
decomposition.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from models.compact_gaussian import CompactGaussian, CompactGaussianConfig, Pooling, filled_rows
from models.errors import DatasetError
from models.pooling import pooled
from models.products import product
from models.residuals import residual
from training.arrays import Indices
from training.distances import Distances
from training.eigenpairs import leading
from training.features import Features
from training.fields import Count, OneOrMore, Positive, Section
from training.folds import merged
from training.joining import Block, Joining
from training.parallel import in_parallel
from training.progress import Progress
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


def _mean(array: NDArray[np.float32], images: Indices) -> Tensor:
    """The mean of a level over pictures, (c, h, w); a row at a time."""
    rows = [row[:, images].mean(1, dtype=np.float64) for row in array]  # h times (w, c)
    return torch.from_numpy(np.stack(rows)).permute(2, 0, 1).float()


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
    usable, DatasetError where the pictures are all the same.
    """
    config, count, (height, width) = scorer.config, features.count, scorer.grid
    joining, everyone = Joining(features, config.pooling), np.arange(features.count)
    assigned = np.zeros(count, np.int64) if folds is None else merged(folds, _MOST_FOLDS)
    groups = [np.flatnonzero(assigned == fold) for fold in np.unique(assigned)]

    def whitenings() -> list[list[Tensor]]:  # moments are several times as large, and gone with this
        moments = moments_of(joining, groups, device=device, progress=progress)
        gone = [None] if folds is None else [None, *range(len(groups))]
        matrices = whitenings_of(moments, gone, epsilon=epsilon, dimensions=config.dimensions)
        return [_levelwise(matrix.to(device), scorer.channels) for matrix in matrices]

    whole, *blind = whitenings()
    _store_whitening(scorer, whole, features, everyone)
    within, outside = torch.empty(count, height * width), torch.empty(count, height * width)

    def fit(block: Block) -> int:
        rows = joining.near(block, everyone, device)
        z = _whitened(joining, block, rows, everyone, whole)
        directions, corrections = shortened(*leading(z, config.rank), config.shrinkage)
        scorer.directions[block.positions] = directions.cpu()
        scorer.corrections[block.positions] = corrections.cpu()
        if folds is not None:
            within[:, block.positions] = residual(z, directions, corrections, shrinkage=config.shrinkage).T.cpu()
        del z  # each fold has another one
        for held, matrix in zip(groups, blind, strict=False):
            outside[held, block.positions] = _unseen(joining, block, rows, held, matrix, config)
        return len(directions)

    with progress.step("gaussian", height * width) as step:
        for done in in_parallel(fit, list(joining.blocks(count)), device=device):
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

    `settings` are pairs of shrinkage and rank.
    """
    joining = Joining(features, pooling)
    moments = moments_of(joining, [known], device=device, progress=progress)
    (whole,) = whitenings_of(moments, [None], epsilon=epsilon, dimensions=dimensions)
    whitening = _levelwise(whole.to(device), features.channels)
    height, width = features.grids[0]
    maps = torch.empty(len(settings), len(asked), height * width)
    both, most = np.concatenate([known, asked]), max(rank for _, rank in settings)

    def ask(block: Block) -> int:
        rows = joining.near(block, both, device)
        z = _whitened(joining, block, rows, np.arange(len(known)), whitening)
        values, vectors = leading(z[:, : len(known)], most)
        for index, (shrinkage, rank) in enumerate(settings):
            directions, corrections = shortened(values[:, :rank], vectors[..., :rank], shrinkage)
            distances = residual(z[:, len(known) :], directions, corrections, shrinkage=shrinkage)
            maps[index][:, block.positions] = distances.T.cpu()
        return len(z)

    with progress.step(f"settings with pooling {pooling}", height * width) as step:
        for done in in_parallel(ask, list(joining.blocks(len(both))), device=device):
            step.advance(by=done)
    return maps.view(len(settings), len(asked), height, width)


def _unseen(
    joining: Joining,
    block: Block,
    rows: Sequence[Tensor],
    held: Indices,
    whitening: Sequence[Tensor],
    config: CompactGaussianConfig,
) -> Tensor:
    """Distances (m, positions) of the pictures at `held` under a Gaussian of the others, as `whitening` is."""
    known = np.setdiff1d(np.arange(rows[0].shape[1]), held)
    z = _whitened(joining, block, rows, known, whitening)
    directions, corrections = shortened(*leading(z[:, known], config.rank), config.shrinkage)
    return residual(z[:, held], directions, corrections, shrinkage=config.shrinkage).T.cpu()


def _levelwise(whitening: Tensor, channels: Sequence[int]) -> list[Tensor]:
    """W (d, k) as the three levels' own, (c_l, k_l): less the columns at their ends that hold nothing."""
    parts = whitening.split(list(channels))
    filled = [filled_rows(part.T) for part in parts[:-1]]
    return [part[:, :count].contiguous() for part, count in zip(parts, [*filled, whitening.shape[1]], strict=True)]


def _whitened(
    joining: Joining, block: Block, rows: Sequence[Tensor], known: Indices, whitening: Sequence[Tensor]
) -> Tensor:
    """Z of all pictures in a block's `rows`, (positions, n, k), less the mean of those at `known`.

    As `CompactGaussian.whiten`: in the levels' own columns, then upsampled and added, the coarsest first.
    """
    parts = []
    for level, (row, matrix) in enumerate(zip(rows, whitening, strict=True)):
        mean = row[:, known].mean(1, keepdim=True)
        white = product((row - mean).flatten(0, 1), matrix.T)
        parts.append(joining.spread(level, block, white.view(*row.shape[:2], -1)))
    z = parts[-1]
    for part in reversed(parts[:-1]):
        z[..., : part.shape[-1]] += part
    return z


def _store_whitening(scorer: CompactGaussian, whitening: Sequence[Tensor], features: Features, images: Indices) -> None:
    places = features.places(images)
    means = pooled([_mean(array, places).unsqueeze(0) for array in features.arrays], scorer.config.pooling)
    for buffer, mean in zip(scorer.means, means, strict=True):
        buffer.copy_(mean.squeeze(0))
    for buffer, part in zip(scorer.whitenings, whitening, strict=True):
        buffer.zero_()
        buffer[: part.shape[1]] = part.T.cpu()
