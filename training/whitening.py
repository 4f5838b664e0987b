"""The whitening that all positions share (seed, step 5.2): from the average covariance of good pictures to W.

One walk over the positions sums up what is needed for any part of the pictures, so that leaving a fold out costs no
second one. No sum depends on the number of threads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.errors import RecipeError
from models.products import gram, product
from training.arrays import Indices
from training.deviations import Deviations
from training.joining import Joining, Patch
from training.parallel import in_parallel
from training.progress import Progress

Pairs = dict[tuple[int, int], Tensor]  # something for each pair of levels, the finer first

_PARTS = 16  # of the sum over positions, so that it does not depend on the number of threads


@dataclass(frozen=True)
class Moments:
    """What whitenings are made of: the mean of all pictures, their scatter about it, and each group's share in that.

    The share is what goes with the group: its own scatter, and that of the others' mean. Both are summed over
    `positions`, for each pair of levels: (c_l, c_m) and (g, c_l, c_m) float64. `means` are each level's, pooled,
    (c_l, h_l, w_l) float32.
    """

    means: Sequence[Tensor]
    counts: tuple[int, ...]
    positions: int
    scatter: Pairs
    shares: Pairs

    def covariance(self, *, without: int | None = None) -> Tensor:
        """The covariance of the pictures, but for one group, about their own means, averaged over positions; (d, d)."""
        if without is None:
            count, left = sum(self.counts), self.scatter
        else:
            count = sum(self.counts) - self.counts[without]
            left = {pair: scatter - self.shares[pair][without] for pair, scatter in self.scatter.items()}
        return _whole(left).div_(max(count - 1, 1) * self.positions)


@torch.inference_mode()
def moments_of(joining: Joining, groups: Sequence[Indices], *, device: torch.device, progress: Progress) -> Moments:
    """The moments of groups of pictures, about the mean of them all.

    Upsampling is linear: the scatter of levels at the fine grid's positions is that of their own places, weighted.
    """
    channels, (height, width) = joining.features.channels, joining.features.grids[0]
    everyone = np.sort(np.concatenate(list(groups)))
    about = Deviations.from_mean(joining, everyone, known=everyone, device=device)
    places = [np.searchsorted(everyone, group) for group in groups]
    patches = list(joining.patches(len(everyone)))
    parts = [patches[part::_PARTS] for part in range(min(_PARTS, len(patches)))]

    def walk(part: list[Patch]) -> Pairs:
        total = _zeros(len(groups) + 1, channels, torch.float32, device)
        for patch in part:
            right = about.own(patch)
            for level in range(patch.level):
                _add_shares(total[level, patch.level], about.meeting(level, patch), right, places)
            itself = about.balanced(patch)
            _add_shares(total[patch.level, patch.level], itself, itself, places)
        return total

    shares = _zeros(len(groups) + 1, channels, torch.float64, torch.device("cpu"))
    with progress.step("covariance", len(parts)) as step:
        for found in in_parallel(walk, parts, device=device):
            for pair, share in shares.items():
                share += found.pop(pair).cpu()
            step.advance()
    scatter = {pair: share[:-1].sum(0) - share[-1] for pair, share in shares.items()}
    shares = {pair: share[:-1] for pair, share in shares.items()}
    return Moments(about.pooled_means(), tuple(len(group) for group in groups), height * width, scatter, shares)


def _zeros(groups: int, channels: Sequence[int], dtype: torch.dtype, device: torch.device) -> Pairs:
    """For each pair of levels, the finer first, nothing yet of each group: (g, c_l, c_m)."""
    return {
        (l, m): torch.zeros(groups, channels[l], channels[m], dtype=dtype, device=device)
        for m in range(3)
        for l in range(m + 1)
    }


def _add_shares(total: Tensor, left: Tensor, right: Tensor, groups: Sequence[Indices]) -> None:
    """Add to `total` (g + 1, c_l, c_m) each group's share, and then how much of all is of the others' means.

    `left` (k, n, c_l) and `right` (k, n, c_m) sum up to nothing over all n pictures, so what is left sums up to what
    has gone: that mean is as good as one more picture of the group.
    """
    sides = [left] if left is right else [left, right]
    if len(groups) == 1:  # of nobody else is there a mean
        total[0] += _products([side.flatten(0, 1) for side in sides])
        return
    means: list[list[Tensor]] = [[] for _ in sides]  # of each group's others
    for group, places in enumerate(groups):
        own = [side[:, places] for side in sides]
        others = max(1, left.shape[1] - len(places))
        for found, side in zip(means, own, strict=True):
            found.append(side.sum(1, keepdim=True) / others**0.5)
        both = [torch.cat([side, found[-1]], dim=1) for side, found in zip(own, means, strict=True)]
        total[group] += _products([side.flatten(0, 1) for side in both])
    total[-1] += _products([torch.cat(found, dim=1).flatten(0, 1) for found in means])


def _products(sides: Sequence[Tensor]) -> Tensor:
    """AᵀB of two matrices, or AᵀA of one."""
    a, *other = sides
    return product(a.T, other[0].T) if other else gram(a.T.contiguous().unsqueeze(0)).squeeze(0)


def _whole(scatter: Pairs) -> Tensor:
    """Pairs of levels as one matrix, (d, d), symmetric but for rounding: of a level with itself both sides are made."""
    upper = [[scatter[min(l, m), max(l, m)] for m in range(3)] for l in range(3)]
    return torch.cat(
        [torch.cat([part if l <= m else part.T for m, part in enumerate(row)], dim=1) for l, row in enumerate(upper)]
    )


def whitenings_of(moments: Moments, gone: Sequence[int | None], *, epsilon: float, dimensions: int) -> Iterator[Tensor]:
    """W (d, k) float32 of (S̄ + εI) for each of the groups `gone`: S̄ is the covariance without it, k `dimensions` of
    its directions.

    They are made side by side, each in a thread of its own: no digit depends on how many there are. Raises RecipeError
    where features are not finite, or so far apart that their rounding is larger than ε.

    W is turned, which changes no distance, until its transpose is upper triangular: many products are with zeros.

    Kept are the narrowest of those that vary by more than ε: defects show where good parts differ little
    (docs/log.md), but in a direction that hardly exists, ε is all there is.
    """

    def work(group: int | None) -> Tensor:
        return _whitening(moments.covariance(without=group), epsilon=epsilon, dimensions=dimensions)

    return in_parallel(work, gone, device=torch.device("cpu"))


def _whitening(covariance: Tensor, *, epsilon: float, dimensions: int) -> Tensor:
    """W of a covariance, which is used up."""
    covariance.diagonal().add_(epsilon)
    if not covariance.isfinite().all():  # which eigh answers with an error of its own
        raise RecipeError("The features of the good pictures are not finite: look for what is wrong in --weights.")
    if dimensions == len(covariance):
        return _triangular(covariance, epsilon=epsilon)
    values, vectors = torch.linalg.eigh(covariance)
    if not (values > epsilon / 2).all():
        raise _spoilt(values, epsilon=epsilon)
    faint = int((values < 2 * epsilon).sum())
    order = [*range(faint, len(values)), *range(faint - 1, -1, -1)][:dimensions]
    kept: Tensor = vectors.mul_(values.rsqrt())[:, order]  # (d, k)
    del vectors
    triangular: Tensor = torch.linalg.qr(kept.T, mode="r").R
    return triangular.triu_().T.float()


def _triangular(covariance: Tensor, *, epsilon: float) -> Tensor:
    """The W that keeps all dimensions, Rᵀ of Σ⁻¹ = RᵀR: the inverse of R is Σ's Cholesky factor, made from its end."""
    reduced = covariance.clone()
    reduced.diagonal().sub_(epsilon / 2)
    if torch.linalg.cholesky_ex(reduced).info:  # an eigenvalue is below that
        raise _spoilt(torch.linalg.eigvalsh(covariance), epsilon=epsilon)
    del reduced
    lower = torch.linalg.cholesky(covariance.flip(0, 1))
    identity = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
    inverse: Tensor = torch.linalg.solve_triangular(lower, identity, upper=False)
    return inverse.flip(0, 1).T.float()


def _spoilt(values: Tensor, *, epsilon: float) -> RecipeError:
    """What to say of a covariance that has an eigenvalue below ε, which is on its diagonal: sums are in float32."""
    return RecipeError(
        f"The average covariance of the features is lost in rounding: its smallest eigenvalue is "
        f"{float(values.min()):.3g}, though scorer.epsilon adds {epsilon:g} to all of them. Raise scorer.epsilon."
    )
