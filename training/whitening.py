"""The whitening that all positions share (seed, step 5.2): from the average covariance of good pictures to W.

One walk over the positions sums up what is needed for any part of the pictures, so that leaving a fold out costs no
second one. No sum depends on the number of threads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from models.errors import RecipeError
from models.products import product
from training.arrays import Indices
from training.joining import Block, Joining
from training.parallel import in_parallel
from training.progress import Progress

_PARTS = 16  # of the sum over positions, so that it does not depend on the number of threads


@dataclass(frozen=True)
class Moments:
    """What whitenings are made of: the scatter of each group of pictures and that of its sum over them, in one walk.

    Both are of y less the mean of all, summed over `positions`: (g, d, d) float64.
    """

    counts: tuple[int, ...]
    positions: int
    scatters: Tensor
    sums: Tensor

    def covariance(self, *, without: int | None = None) -> Tensor:
        """The covariance of the pictures, but for one group, about their own means, averaged over positions; (d, d)."""
        kept = [group for group in range(len(self.counts)) if group != without]
        count = sum(self.counts[group] for group in kept)
        scatter = self.scatters[kept].sum(0)
        if without is not None:  # all sum up to nothing, so what is left sums up to what has gone
            scatter = scatter - self.sums[without] / count
        return scatter / (max(count - 1, 1) * self.positions)


@torch.inference_mode()
def moments_of(joining: Joining, groups: Sequence[Indices], *, device: torch.device, progress: Progress) -> Moments:
    """The moments of groups of pictures, about the mean of them all.

    Upsampling is linear: the scatter of levels at the fine grid's positions is that of their own columns, weighted.
    """
    channels, (height, width) = joining.features.channels, joining.features.grids[0]
    everyone = np.concatenate(list(groups))
    bounds = np.cumsum([0, *(len(group) for group in groups)])
    blocks = list(joining.blocks(len(everyone)))
    parts = [blocks[part::_PARTS] for part in range(min(_PARTS, len(blocks)))]

    def scatter(part: list[Block]) -> Tensor:
        total = torch.zeros(2, len(groups), sum(channels), sum(channels), dtype=torch.float64, device=device)
        for block in part:
            rows = [row - row.mean(1, keepdim=True) for row in joining.near(block, everyone, device)]
            overlaps = _overlaps(joining, block, device)
            for group, (start, stop) in enumerate(pairwise(bounds)):
                mine = [row[:, start:stop] for row in rows]
                total[0, group] += _scatter(mine, overlaps).double()
                total[1, group] += _scatter([row.sum(1, keepdim=True) for row in mine], overlaps).double()
        return total

    sums = torch.zeros(2, len(groups), sum(channels), sum(channels), dtype=torch.float64, device=device)
    with progress.step("covariance", len(parts)) as step:
        for scattered in in_parallel(scatter, parts, device=device):
            sums += scattered
            step.advance()
    scatters, outer = sums.cpu()
    return Moments(tuple(len(group) for group in groups), height * width, scatters, outer)


def _overlaps(joining: Joining, block: Block, device: torch.device) -> dict[tuple[int, int], Tensor]:
    """For each pair of levels, the finer first, how much their columns have in common over a block's positions."""
    across = [joining.across(level, block).to(device) for level in range(3)]
    return {(l, m): across[m].T @ across[l] for m in range(3) for l in range(m + 1)}  # (w'_m, w'_l)


def _scatter(rows: Sequence[Tensor], overlaps: Mapping[tuple[int, int], Tensor]) -> Tensor:
    """Σ y·yᵀ over a block's positions and pictures, (d, d), from the rows (w'_l, m, c_l) of its levels."""
    parts: dict[tuple[int, int], Tensor] = {}
    for (l, m), overlap in overlaps.items():
        finer = (overlap @ rows[l].flatten(1)).view(len(overlap), *rows[l].shape[1:])  # in the coarser one's columns
        parts[l, m] = product(finer.flatten(0, 1).T, rows[m].flatten(0, 1).T)
        parts[m, l] = parts[l, m].T
    return torch.cat([torch.cat([parts[l, m] for m in range(3)], dim=1) for l in range(3)])


def whitening_of(covariance: Tensor, *, epsilon: float, dimensions: int) -> Tensor:
    """W (d, k) float32 of (S̄ + εI), S̄ (d, d) float64 being the average covariance, k `dimensions` of its directions.

    It is turned, which changes no distance, until its transpose is upper triangular: many products are with zeros.

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
    triangular: Tensor = torch.linalg.qr(kept.T, mode="r").R
    return triangular.triu().T.float()
