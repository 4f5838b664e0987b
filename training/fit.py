"""One Gaussian per position from the good images (seed, step 5.2), and their scores out of sample.

Features are extracted once, into a memory-mapped file in the working folder, so that memory does not grow
with the number of images; everything after that walks over blocks of positions, each of which holds all
images. Out-of-sample distances need no second fit per image: leaving one image out has a closed form, and a
fold's Gaussian is that of all images less the fold's share of the same Gram matrix.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.detector import Detector
from models.errors import RecipeError
from models.gaussian import covariance_factor
from training.progress import Progress

_BLOCK_BYTES = 256 * 2**20  # for the largest array of a block, (positions, d, d) or (n, positions, d)


@dataclass(frozen=True)
class GaussianFit:
    """`mean` (p, d) and packed `whitening` (p, d(d+1)/2) of all images; distances (n, p) of each image under
    them (`in_sample`) and under a Gaussian of images among which it is not (`out_of_sample`).
    """

    mean: Tensor
    whitening: Tensor
    in_sample: Tensor
    out_of_sample: Tensor


@torch.inference_mode()
def extract(
    detector: Detector, images: Tensor, *, file: Path, device: torch.device, progress: Progress, batch_size: int = 16
) -> NDArray[np.float32]:
    """Selected features of tiles (n, 3, s, s) uint8 as an array (n, p, d) float32, mapped to `file`."""
    features: NDArray[np.float32] | None = None
    done = 0
    with progress.step("features", len(images)) as step:
        for batch in images.split(batch_size):
            embedded = detector.scorer.embed(detector.levels(batch.to(device))).cpu()  # (b, p, d)
            if features is None:
                features = _allocate(file, (len(images), embedded.shape[1], embedded.shape[2]))
            features[done : done + len(batch)] = embedded.numpy()
            done += len(batch)
            step.advance(by=len(batch))
    assert features is not None, "there is at least one image"
    return features


def _allocate(file: Path, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """A float32 array mapped to a file whose space is really there: a full disk would end in a bus error."""
    features = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
    try:
        with file.open("r+b") as mapped:
            os.posix_fallocate(mapped.fileno(), 0, file.stat().st_size)
    except OSError as error:
        raise RecipeError(
            f"There is no room for {file.stat().st_size / 1e9:.1f} GB of features at {file.parent} ({error.strerror}). "
            "Make some, give another folder with --artifacts, or lower gaussian.channels in the recipe."
        ) from error
    return features


@torch.inference_mode()
def fit_gaussian(
    features: NDArray[np.float32], *, epsilon: float, folds: NDArray[np.int64] | None, progress: Progress
) -> GaussianFit:
    """Fit (n, p, d) features, n >= 2. `folds` (n,) is the fold of each image; None leaves one image out.

    The covariance is the sample covariance (divided by n - 1) plus `epsilon` on the diagonal.
    """
    n, positions, d = features.shape
    block = max(1, min(positions, _BLOCK_BYTES // (8 * d * max(d, n))))
    mean = torch.empty(positions, d)
    whitening = torch.empty(positions, d * (d + 1) // 2)
    in_sample, out_of_sample = torch.empty(n, positions), torch.empty(n, positions)
    with progress.step("gaussian", positions) as step:
        for start in range(0, positions, block):
            part = slice(start, min(start + block, positions))
            # float64: of few images the Gaussian is narrow, and leaving one out divides by what is left of it.
            y = torch.from_numpy(features[:, part]).double().transpose(0, 1).contiguous()  # (p, n, d)
            centre = y.mean(1)
            y -= centre.unsqueeze(1)
            mean[part] = centre
            gram = y.transpose(1, 2) @ y  # (p, d, d)
            covariance = _covariance(gram, n, epsilon)
            whitening[part] = covariance_factor(covariance)
            within = _distances(y, covariance)
            in_sample[:, part] = within
            if folds is None:
                out_of_sample[:, part] = leave_one_out(within, n)
            else:
                for fold in np.unique(folds):
                    held = torch.from_numpy(np.flatnonzero(folds == fold))
                    out_of_sample[held, part] = _held_out_distances(y, gram, held, epsilon).float()
            step.advance(by=part.stop - part.start)
    return GaussianFit(mean, whitening, in_sample, out_of_sample)


def assign_folds(n: int, folds: int, *, seed: int) -> NDArray[np.int64]:
    """Which of at most `folds` folds, of sizes that differ by one at most, each of `n` images belongs to."""
    count = min(folds, n)
    assigned = np.arange(n) % count
    return np.random.default_rng([seed, n, count]).permutation(assigned)


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


def _distances(centred: Tensor, covariance: Tensor) -> Tensor:
    """Mahalanobis distances (k, p) of offsets (p, k, d) under covariances (p, d, d), all float64."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed.any():
        raise RecipeError("a covariance is not positive definite: raise gaussian.epsilon in the recipe")
    whitened: Tensor = torch.linalg.solve_triangular(factor, centred.transpose(1, 2), upper=False)  # (p, d, k)
    return whitened.square().sum(1).sqrt().T


def _held_out_distances(y: Tensor, gram: Tensor, held: Tensor, epsilon: float) -> Tensor:
    """Distances (k, p) of the held-out images under the Gaussian of the others.

    `y` (p, n, d) is centred on the mean of all images, so the others' sum is minus the held-out sum.
    """
    n, k = y.shape[1], len(held)
    out = y[:, held]  # (p, k, d)
    mean = -out.sum(1) / (n - k)  # (p, d)
    scatter = gram - out.transpose(1, 2) @ out - (n - k) * mean.unsqueeze(2) * mean.unsqueeze(1)
    return _distances(out - mean.unsqueeze(1), _covariance(scatter, n - k, epsilon))
