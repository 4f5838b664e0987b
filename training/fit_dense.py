"""Fits the dense Gaussian: mean and covariance of each position (seed, step 5.2), and distances out of sample.

Walks over blocks of positions, each with all pictures. Out-of-sample distances need no second fit per picture:
leaving one out has a closed form, and a fold's Gaussian is that of all pictures less the fold's share of the same
Gram matrix.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.gaussian import DenseGaussian, covariance_factor, pack_lower, select_channels
from training.arrays import Indices
from training.distances import Distances
from training.features import Features
from training.fields import Count, Positive, Section
from training.joining import Block, Joining
from training.parallel import in_parallel
from training.progress import Progress


class DenseGaussianSection(Section):
    """Seed, step 5.2, as written. `channels` bounds the fused channels: PaDiM's random selection, seeded."""

    name: Literal["dense_gaussian"] = "dense_gaussian"
    channels: Count = 550
    epsilon: Positive = 0.01


@torch.inference_mode()
def fit_dense(
    scorer: DenseGaussian,
    features: Features,
    *,
    epsilon: float,
    seed: int,
    folds: Indices | None,
    device: torch.device,
    progress: Progress,
) -> Distances:
    """Fit `scorer`, in place, to n >= 2 good pictures, over channels drawn by `seed`.

    The covariance is the sample covariance (divided by n - 1) plus `epsilon` on the diagonal. `folds` (n,) is the
    fold of each picture: it is then also scored by a Gaussian of the other folds; where most are a fold of their
    own, these in closed form. None: no distances are wanted.
    """
    scorer.indices.copy_(select_channels(sum(scorer.channels), len(scorer.indices), seed=seed))
    n, (height, width) = features.count, scorer.grid
    joining, everyone = Joining(features, pooling=1), np.arange(n)
    within, outside = torch.empty(n, height * width), torch.empty(n, height * width)

    def fit(block: Block) -> int:
        part = block.positions
        # float64: of few images the Gaussian is narrow, and leaving one out divides by what is left of it.
        y = joining.embed(block, everyone, device)[..., scorer.indices.to(device)].double()  # (p, n, d)
        centre = y.mean(1)
        y -= centre.unsqueeze(1)
        gram = y.transpose(1, 2) @ y  # (p, d, d)
        whitening = covariance_factor(_covariance(gram, n, epsilon))
        scorer.mean[part] = centre.cpu()
        scorer.whitening[part] = pack_lower(whitening).float().cpu()
        if folds is not None:
            distances = _whitened_norm(y, whitening)
            within[:, part] = distances.cpu()
            outside[:, part] = _unseen(y, gram, distances, folds, epsilon).cpu()
        return len(y)

    with progress.step("gaussian", height * width) as step:
        for done in in_parallel(fit, list(joining.blocks(n, matrix_bytes=8 * len(scorer.indices) ** 2)), device=device):
            step.advance(by=done)
    if folds is None:
        return Distances(None, None)
    return Distances(within.view(n, height, width), outside.view(n, height, width))


def _unseen(y: Tensor, gram: Tensor, distances: Tensor, folds: Indices, epsilon: float) -> Tensor:
    """Distances (n, p) of each picture under the Gaussian of the other folds."""
    numbers, sizes = np.unique(folds, return_counts=True)
    one_by_one = int((sizes == 1).sum()) > y.shape[1] // 2  # but for some that look alike
    outside = leave_one_out(distances, y.shape[1]) if one_by_one else torch.empty_like(distances)
    for fold in numbers[sizes > 1] if one_by_one else numbers:
        held = torch.from_numpy(np.flatnonzero(folds == fold)).to(y.device)
        outside[held] = _held_out_distances(y, gram, held, epsilon)
    return outside


def leave_one_out(in_sample: Tensor, n: int) -> Tensor:
    """Distances under the Gaussian of the other n - 1 images, from those under the Gaussian of all n; float64.

    With y centred on the mean of all, A = G + (n-1)εI and q = yᵀA⁻¹y = M²/(n-1): leaving y out turns A into
    A - c·yyᵀ with c = n/(n-1), and y's distance from the new mean into c·y, so by Sherman and Morrison
    M'² = (n-2)·c²·q / (1 - c·q). Exact but for ε, which becomes ε·(n-1)/(n-2), and exact without that for n = 2,
    where the other image's covariance is ε alone. c·q nears 1 where channels outnumber images: hence float64.
    """
    c = n / (n - 1)
    q = in_sample.square() / (n - 1)
    left = (1 - c * q).clamp_min(torch.finfo(torch.float64).eps)
    return (max(n - 2, 1) * c**2 * q / left).sqrt()


def _covariance(gram: Tensor, n: int, epsilon: float) -> Tensor:
    covariance = gram / max(n - 1, 1)  # a single image has no covariance but epsilon
    covariance.diagonal(dim1=1, dim2=2).add_(epsilon)
    return covariance


def _whitened_norm(centred: Tensor, whitening: Tensor) -> Tensor:
    """Mahalanobis distances (k, p) of offsets (p, k, d) by whitenings (p, d, d), all float64."""
    return (centred @ whitening.transpose(1, 2)).square().sum(2).sqrt().T


def _held_out_distances(y: Tensor, gram: Tensor, held: Tensor, epsilon: float) -> Tensor:
    """Distances (k, p) of the held-out images under the Gaussian of the others.

    `y` (p, n, d) is centred on the mean of all images, so the others' sum is minus the held-out sum.
    """
    n, k = y.shape[1], len(held)
    out = y[:, held]  # (p, k, d)
    mean = -out.sum(1) / (n - k)  # (p, d)
    scatter = gram - out.transpose(1, 2) @ out - (n - k) * mean.unsqueeze(2) * mean.unsqueeze(1)
    whitening = covariance_factor(_covariance(scatter, n - k, epsilon))
    return _whitened_norm(out - mean.unsqueeze(1), whitening)
