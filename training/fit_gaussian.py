"""Fits the compact Gaussian: shared whitening, then each position's leading directions (seed, step 5.2).

Two walks over blocks of positions, each block with all pictures: one sums up the average covariance, the other
whitens and decomposes. Nothing but a block is in memory. The second walk also scores pictures that a fit has not
seen, for as many values of shrinkage and rank as are asked for: these share one decomposition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from models.compact_gaussian import CompactGaussian, Pooling, residual
from models.errors import DatasetError, RecipeError
from models.pooling import pooled
from training.distances import Distances
from training.features import Features
from training.fields import Count, OneOrMore, Positive, Section
from training.joining import Block, Joining
from training.parallel import in_parallel
from training.progress import Progress

_EXACT = 512  # the smaller side of what is decomposed exactly; beyond it the leading directions are iterated for
_SPARE, _ITERATIONS = 8, 4  # of that iteration: directions beyond those that are kept, and rounds
_PARTS = 16  # of the sum over positions, so that it does not depend on the number of threads

Images = NDArray[np.int64]


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


@dataclass(frozen=True)
class Whitening:
    """`means` of the three pooled levels, (c_l, h_l, w_l) each, and W (d, k) float32."""

    means: tuple[Tensor, ...]
    matrix: Tensor


@torch.inference_mode()
def shared_whitening(
    joining: Joining, images: Images, *, epsilon: float, dimensions: int, device: torch.device, progress: Progress
) -> Whitening:
    """The whitening of (S̄ + εI) over all positions, reduced to `dimensions` of its d directions.

    Kept are the narrowest of those that vary by more than ε: defects show where good parts differ little
    (benchmarks/README.md), but in a direction that hardly exists, ε is all there is.
    """
    d = sum(joining.features.channels)
    height, width = joining.features.grids[0]
    blocks = list(joining.blocks(len(images)))
    parts = [blocks[part::_PARTS] for part in range(min(_PARTS, len(blocks)))]

    def scatter(part: list[Block]) -> Tensor:
        total = torch.zeros(d, d, dtype=torch.float64, device=device)
        for block in part:
            y = joining.embed(block, images, device)  # (p, n, d)
            flat = (y - y.mean(1, keepdim=True)).flatten(0, 1)
            total += (flat.T @ flat).double()
        return total

    total = torch.zeros(d, d, dtype=torch.float64, device=device)
    with progress.step("covariance", len(parts)) as step:
        for scattered in in_parallel(scatter, parts, device=device):
            total += scattered
            step.advance()
    covariance = total / ((len(images) - 1) * height * width)
    covariance.diagonal().add_(epsilon)
    if not covariance.isfinite().all():  # which eigh answers with an error of its own
        raise RecipeError("The features of the good pictures are not finite: look for what is wrong in --weights.")
    values, vectors = torch.linalg.eigh(covariance)
    if not (values > 0).all():
        raise RecipeError(
            f"The average covariance of the features is not positive definite (its smallest eigenvalue is "
            f"{float(values.min()):.3g}). Raise scorer.epsilon."
        )
    faint = int((values < 2 * epsilon).sum())
    order = [*range(faint, d), *range(faint - 1, -1, -1)][:dimensions]
    kept = (vectors * values.rsqrt())[:, order]
    places = joining.features.places(images)
    means = tuple(_mean(array, places) for array in joining.features.arrays)
    return Whitening(means, kept.float())


def _mean(array: NDArray[np.float32], images: Images) -> Tensor:
    """The mean of a level over pictures, (c, h, w); a row at a time."""
    rows = [row[:, images].mean(1, dtype=np.float64) for row in array]  # h times (w, c)
    return torch.from_numpy(np.stack(rows)).permute(2, 0, 1).float()


def leading(z: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Leading eigenpairs of each position's covariance from centred z (p, n, k).

    Values (p, r) descending, vectors (p, k, r). Where there are fewer directions than `rank`, the rest is zero.
    """
    n, k = z.shape[1:]
    available = min(rank, n, k)
    if min(n, k) > _EXACT and available + _SPARE < min(n, k) // 2:
        values, vectors = _iterated(z, available + _SPARE)
    elif k <= n:
        values, vectors = torch.linalg.eigh(z.transpose(1, 2) @ z)
        values, vectors = values.flip(1), vectors.flip(2)
    else:
        values, left = torch.linalg.eigh(z @ z.transpose(1, 2))
        values, left = values.flip(1), left.flip(2)
        # A centred z has n - 1 directions: the last value is zero but for rounding, and has no direction.
        seen = values > values[:, :1] * 1e-6
        scale = torch.where(seen, values, 1).rsqrt() * seen
        vectors = (z.transpose(1, 2) @ left) * scale.unsqueeze(1)
    values = values[:, :available].clamp_min(0) / max(n - 1, 1)
    missing = (0, rank - available)
    return F.pad(values, missing), F.pad(vectors[..., :available], missing)


def _iterated(z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` leading eigenpairs of zᵀz, values (p, count) and vectors (p, k, count), by subspace iteration.

    The last of them are rough (Halko, Martinsson and Tropp, SIAM Review 2011).
    """
    k = z.shape[2]
    start = torch.randn(k, count, generator=torch.Generator().manual_seed(k * count)).to(z)
    basis = start.expand(len(z), k, count)
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(z.transpose(1, 2) @ (z @ basis)).Q
    seen = z @ basis  # (p, n, count)
    values, turn = torch.linalg.eigh(seen.transpose(1, 2) @ seen)
    return values.flip(1), (basis @ turn).flip(2)


def shortened(values: Tensor, vectors: Tensor, shrinkage: float) -> Tensor:
    """Directions with the length sqrt(s/(s + λ)), s = (1-λ)·values, as the scorer stores them: (p, k, r) float16."""
    s = (1 - shrinkage) * values
    return (vectors * (s / (s + shrinkage)).sqrt().unsqueeze(1)).half()


@torch.inference_mode()
def fit_gaussian(
    scorer: CompactGaussian,
    features: Features,
    *,
    epsilon: float,
    folds: Images | None,
    device: torch.device,
    progress: Progress,
) -> Distances:
    """Fit `scorer`, in place, to n >= 2 good pictures.

    `folds` (n,) is the fold of each picture: it is then scored by a Gaussian of the other folds, under the
    whitening of all. None: no distances are wanted. Raises RecipeError where the features are not
    usable, DatasetError where the pictures are all the same.
    """
    config, everyone = scorer.config, np.arange(features.count)
    joining = Joining(features, config.pooling)
    whitening = shared_whitening(
        joining, everyone, epsilon=epsilon, dimensions=config.dimensions, device=device, progress=progress
    )
    _store_whitening(scorer, whitening)
    count, (height, width) = features.count, scorer.grid
    within, outside = torch.empty(count, height * width), torch.empty(count, height * width)

    def fit(block: Block) -> int:
        z = _whitened(joining, whitening, block, everyone, known=count, device=device)
        directions = shortened(*leading(z, config.rank), config.shrinkage)
        scorer.directions[block.positions] = directions.cpu()
        if folds is not None:
            within[:, block.positions] = residual(z, directions, config.shrinkage).T.cpu()
            for fold in np.unique(folds):
                held = np.flatnonzero(folds == fold)
                distances = _held_out(z, held, rank=config.rank, shrinkage=config.shrinkage)
                outside[held, block.positions] = distances.T.cpu()
        return len(z)

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
    known: Images,
    asked: Images,
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
    whitening = shared_whitening(
        joining, known, epsilon=epsilon, dimensions=dimensions, device=device, progress=progress
    )
    height, width = features.grids[0]
    maps = torch.empty(len(settings), len(asked), height * width)
    both, most = np.concatenate([known, asked]), max(rank for _, rank in settings)

    def ask(block: Block) -> int:
        z = _whitened(joining, whitening, block, both, known=len(known), device=device)
        values, vectors = leading(z[:, : len(known)], most)
        for index, (shrinkage, rank) in enumerate(settings):
            directions = shortened(values[:, :rank], vectors[..., :rank], shrinkage)
            maps[index][:, block.positions] = residual(z[:, len(known) :], directions, shrinkage).T.cpu()
        return len(z)

    with progress.step(f"settings with pooling {pooling}", height * width) as step:
        for done in in_parallel(ask, list(joining.blocks(len(both))), device=device):
            step.advance(by=done)
    return maps.view(len(settings), len(asked), height, width)


def _whitened(
    joining: Joining, whitening: Whitening, block: Block, images: Images, *, known: int, device: torch.device
) -> Tensor:
    """Z of `images` at a block's positions, (p, m, k), centred on the mean of the `known` first of them."""
    y = joining.embed(block, images, device)
    return (y - y[:, :known].mean(1, keepdim=True)) @ whitening.matrix


def _held_out(z: Tensor, held: NDArray[np.int64], *, rank: int, shrinkage: float) -> Tensor:
    """Distances (p, m) of the held-out ones among z (p, n, k) under the Gaussian of the others."""
    others = np.setdiff1d(np.arange(z.shape[1]), held)
    known = z[:, others]
    mean = known.mean(1, keepdim=True)
    directions = shortened(*leading(known - mean, rank), shrinkage)
    return residual(z[:, held] - mean, directions, shrinkage)


def _store_whitening(scorer: CompactGaussian, whitening: Whitening) -> None:
    means = pooled([mean.unsqueeze(0) for mean in whitening.means], scorer.config.pooling)
    parts = whitening.matrix.cpu().split(list(scorer.channels))
    for buffer, mean in zip(scorer.means, means, strict=True):
        buffer.copy_(mean.squeeze(0))
    for buffer, part in zip(scorer.whitenings, parts, strict=True):
        buffer.copy_(part.T)
