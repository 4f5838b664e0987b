"""The whitening that all positions share (seed, step 5.2): from the average covariance of good pictures to W.

One walk over the positions sums up what is needed for any part of the pictures, so that leaving a fold out costs no
second one. No sum depends on the number of threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from models.errors import RecipeError
from training.arrays import Indices
from training.joining import Block, Joining
from training.parallel import in_parallel
from training.progress import Progress

_PARTS = 16  # of the sum over positions, so that it does not depend on the number of threads


@dataclass(frozen=True)
class Moments:
    """What whitenings are made of: the scatter of each group of pictures and its sums over them, in one walk.

    Both are of y less the mean of all. `scatters` (g, d, d) float64 are summed over positions, `sums` are (g, P, d).
    """

    counts: tuple[int, ...]
    scatters: Tensor
    sums: Tensor

    def covariance(self, groups: Sequence[int]) -> Tensor:
        """The covariance of the pictures in `groups` about their own means, averaged over positions; (d, d) float64."""
        chosen = list(groups)
        count = sum(self.counts[group] for group in chosen)
        together = self.sums[chosen].sum(0).double()  # (P, d)
        scatter = self.scatters[chosen].sum(0) - together.T @ together / count
        return scatter / (max(count - 1, 1) * len(together))


@torch.inference_mode()
def moments_of(joining: Joining, groups: Sequence[Indices], *, device: torch.device, progress: Progress) -> Moments:
    """The moments of groups of pictures, about the mean of them all."""
    d, (height, width) = sum(joining.features.channels), joining.features.grids[0]
    everyone = np.concatenate(list(groups))
    bounds = np.cumsum([0, *(len(group) for group in groups)])
    sums = torch.empty(len(groups), height * width, d)
    blocks = list(joining.blocks(len(everyone)))
    parts = [blocks[part::_PARTS] for part in range(min(_PARTS, len(blocks)))]

    def scatter(part: list[Block]) -> Tensor:
        total = torch.zeros(len(groups), d, d, dtype=torch.float64, device=device)
        for block in part:
            y = joining.embed(block, everyone, device)  # (p, n, d)
            y -= y.mean(1, keepdim=True)
            for group, (start, stop) in enumerate(pairwise(bounds)):
                mine = y[:, start:stop]
                flat = mine.flatten(0, 1)
                total[group] += (flat.T @ flat).double()
                sums[group, block.positions] = mine.sum(1).cpu()
        return total

    scatters = torch.zeros(len(groups), d, d, dtype=torch.float64, device=device)
    with progress.step("covariance", len(parts)) as step:
        for scattered in in_parallel(scatter, parts, device=device):
            scatters += scattered
            step.advance()
    return Moments(tuple(len(group) for group in groups), scatters.cpu(), sums)


def whitening_of(covariance: Tensor, *, epsilon: float, dimensions: int) -> Tensor:
    """W (d, k) float32 of (S̄ + εI), S̄ (d, d) float64 being the average covariance, k `dimensions` of its directions.

    Kept are the narrowest of those that vary by more than ε: defects show where good parts differ little
    (docs/log.md), but in a direction that hardly exists, ε is all there is.
    """
    d = len(covariance)
    regular = covariance + epsilon * torch.eye(d, dtype=covariance.dtype)
    if not regular.isfinite().all():  # which eigh answers with an error of its own
        raise RecipeError("The features of the good pictures are not finite: look for what is wrong in --weights.")
    # In a thread of its own, so that the result does not depend on how many there are.
    values, vectors = next(in_parallel(torch.linalg.eigh, [regular], device=torch.device("cpu")))
    if not (values > 0).all():
        raise RecipeError(
            f"The average covariance of the features is not positive definite (its smallest eigenvalue is "
            f"{float(values.min()):.3g}). Raise scorer.epsilon."
        )
    faint = int((values < 2 * epsilon).sum())
    order = [*range(faint, d), *range(faint - 1, -1, -1)][:dimensions]
    kept: Tensor = (vectors * values.rsqrt())[:, order]  # (d, k)
    # Turned, which changes no distance, so that W is upper triangular: products with zeros need not be made.
    triangular: Tensor = torch.linalg.qr(kept.T, mode="r").R
    return triangular.triu().T.float()
