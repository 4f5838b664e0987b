"""The whitening that all positions share (seed, step 5.2): from the average covariance of good pictures to W.

One walk over the positions sums up what is needed for any part of the pictures, so that leaving a fold out costs no
second one. No sum depends on the number of threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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

Pairs = dict[tuple[int, int], Tensor]  # something for each pair of levels, the finer first

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

    def walk(part: list[Block]) -> tuple[Pairs, Tensor]:
        total = _zeros(len(groups), channels, torch.float32, device)
        sums = []
        for block in part:
            rows = [row - row.mean(1, keepdim=True) for row in joining.near(block, everyone, device)]
            spans = list(pairwise(bounds))
            _add_scatter(total, rows, spans, _overlaps(joining, block, device))
            summed = [torch.stack([row[:, start:stop].sum(1) for start, stop in spans], dim=1) for row in rows]
            spread = [joining.spread(level, block, row) for level, row in enumerate(summed)]
            sums.append(torch.cat(spread, dim=2))  # (k, g, d)
        together = torch.cat(sums).unbind(1)  # g times (positions, d)
        return total, torch.stack([product(each.T, each.T) for each in together]).cpu()

    scatters = _zeros(len(groups), channels, torch.float64, torch.device("cpu"))
    outer = torch.zeros(len(groups), sum(channels), sum(channels), dtype=torch.float64)
    with progress.step("covariance", len(parts)) as step:
        for part_scatters, part_outer in in_parallel(walk, parts, device=device):
            for pair, scatter in part_scatters.items():
                scatters[pair] += scatter.cpu()
            outer += part_outer
            step.advance()
    return Moments(tuple(len(group) for group in groups), height * width, _whole(scatters), outer)


def _zeros(groups: int, channels: Sequence[int], dtype: torch.dtype, device: torch.device) -> Pairs:
    """For each pair of levels, the finer first, nothing yet of each group: (g, c_l, c_m)."""
    return {
        (l, m): torch.zeros(groups, channels[l], channels[m], dtype=dtype, device=device)
        for m in range(3)
        for l in range(m + 1)
    }


def _overlaps(joining: Joining, block: Block, device: torch.device) -> Pairs:
    """How much the columns of two levels have in common over a block's positions: (w'_m, w'_l)."""
    across = [joining.across(level, block).to(device) for level in range(3)]
    return {(l, m): across[m].T @ across[l] for m in range(3) for l in range(m + 1)}


def _add_scatter(total: Pairs, rows: Sequence[Tensor], spans: Sequence[tuple[int, int]], overlaps: Pairs) -> None:
    """Add Σ y·yᵀ over a block's positions, a span of the pictures at a time, from its levels' rows (w'_l, n, c_l)."""
    for (l, m), overlap in overlaps.items():
        finer = (overlap @ rows[l].flatten(1)).view(len(overlap), *rows[l].shape[1:])  # in the coarser one's columns
        for group, (start, stop) in enumerate(spans):
            left, right = finer[:, start:stop].flatten(0, 1), rows[m][:, start:stop].flatten(0, 1)
            total[l, m][group] += product(left.T, right.T)


def _whole(scatters: Pairs) -> Tensor:
    """Pairs of levels as one symmetric matrix a group: (g, d, d)."""
    upper = [[scatters[min(l, m), max(l, m)] for m in range(3)] for l in range(3)]
    rows = [
        torch.cat([part if l <= m else part.mT for m, part in enumerate(row)], dim=2) for l, row in enumerate(upper)
    ]
    return torch.cat(rows, dim=1)


def whitenings_of(covariances: Sequence[Tensor], *, epsilon: float, dimensions: int) -> list[Tensor]:
    """`whitening_of` each; side by side, and each in a thread of its own: no digit depends on how many there are."""
    work = partial(_whitening, epsilon=epsilon, dimensions=dimensions)
    return list(in_parallel(work, covariances, device=torch.device("cpu")))


def whitening_of(covariance: Tensor, *, epsilon: float, dimensions: int) -> Tensor:
    """W (d, k) float32 of (S̄ + εI), S̄ (d, d) float64 being the average covariance, k `dimensions` of its directions.

    It is turned, which changes no distance, until its transpose is upper triangular: many products are with zeros.

    Kept are the narrowest of those that vary by more than ε: defects show where good parts differ little
    (docs/log.md), but in a direction that hardly exists, ε is all there is.
    """
    return whitenings_of([covariance], epsilon=epsilon, dimensions=dimensions)[0]


def _whitening(covariance: Tensor, *, epsilon: float, dimensions: int) -> Tensor:
    d = len(covariance)
    regular = covariance + epsilon * torch.eye(d, dtype=covariance.dtype)
    if not regular.isfinite().all():  # which eigh answers with an error of its own
        raise RecipeError("The features of the good pictures are not finite: look for what is wrong in --weights.")
    values, vectors = torch.linalg.eigh(regular)
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
