"""Leading eigenpairs of many covariances: exactly where matrices are small, iterated for where they are not.

Positions that lie beside one another see nearly the same, so that an iteration begins where the last one ended.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.products import gram

_SPARE = 16  # directions that are iterated for beyond those that are kept: the last ones are rough
_LARGE = 3  # times as many directions as are iterated for: up to there all are found nearly as fast
_WIDE = 512  # of the smaller side: beyond it two products with z cost less than its Gram matrix
_STILL = 0.1  # of a direction's variance: rounds end when they change by less on average
_ROUNDS = 30  # at most
_NOTHING = 1e-6  # of the largest variance


def iterates(n: int, k: int, rank: int) -> bool:
    """Whether the eigenpairs of n vectors of k numbers are iterated for."""
    return min(n, k) > _LARGE * (rank + _SPARE)


class Leading:
    """Finds the `rank` leading eigenpairs of covariances, of one block of neighbouring positions after the other."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._basis: Tensor | None = None  # (s, m): the last position's, leading ones first

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenpairs of each position's covariance from centred z (p, n, k) in float32 or bfloat16.

        Values (p, r) descending, vectors (p, k, r), both float32. Where there are fewer directions than `rank`, the
        rest is zero. How the values are come by is no matter for what they mean: each is the variance along its vector.
        """
        n, k = z.shape[1:]
        side = z if n <= k else z.transpose(1, 2)  # (p, s, o): the smaller side first
        values, found = self._iterated(side) if iterates(n, k, self.rank) else _decomposed(side)
        available = min(self.rank, n, k)
        values, found = values[:, :available], found[..., :available]
        if n <= k:
            # A centred z has n - 1 directions: the last value is zero but for rounding, and has no direction.
            seen = values > values[:, :1] * _NOTHING
            # Normalised, not divided by the root of the value: of small values rounding has left little.
            found = F.normalize((z.transpose(1, 2) @ found.to(z.dtype)).float(), dim=1) * seen.unsqueeze(1)
        missing = (0, self.rank - available)
        return F.pad(values.clamp_min(0) / max(n - 1, 1), missing), F.pad(found, missing)

    def _iterated(self, side: Tensor) -> tuple[Tensor, Tensor]:
        """Leading eigenpairs of S·Sᵀ, (p, m) and (p, s, m), by subspace iteration with a polynomial of degree two.

        With G = S·Sᵀ each round takes G·(G - a)·Q for Q: a is about the largest variance that is not looked for, so
        what is smaller fades (Y. Saad, Numerical Methods for Large Eigenvalue Problems, SIAM 2011, chapters 5 and 7).
        """
        multiply, spare = _multiplication(side), _SPARE // 2
        basis = self._start(side).expand(len(side), -1, -1)
        before: Tensor | None = None
        for _ in range(_ROUNDS):
            rounded = basis.to(side.dtype)
            once = multiply(rounded)
            variances = (once * rounded).sum(1, dtype=torch.float32)  # (p, m)
            if before is not None and _still(before[:, : self.rank], variances[:, : self.rank]):
                break
            before = variances
            unwanted = variances[:, -spare:].mean(1).view(-1, 1, 1)
            basis = torch.linalg.qr(multiply(once).sub_(once.mul_(unwanted)).float()).Q
        values, turn = torch.linalg.eigh(basis.transpose(1, 2) @ multiply(basis))
        found = (basis @ turn).flip(2)
        self._basis = found[-1]
        return values.flip(1), found

    def _start(self, side: Tensor) -> Tensor:
        """A basis (s, m) to begin from."""
        if self._basis is None or len(self._basis) != side.shape[1]:
            _, found = _decomposed(side[:1].float())
            self._basis = found[0, :, : self.rank + _SPARE]
        return self._basis


def _decomposed(side: Tensor) -> tuple[Tensor, Tensor]:
    """All eigenpairs of S·Sᵀ, (p, s) and (p, s, s), the leading ones first."""
    values, found = torch.linalg.eigh(gram(side).float())
    return values.flip(1), found.flip(2)


def _multiplication(side: Tensor) -> Callable[[Tensor], Tensor]:
    """Q -> S·Sᵀ·Q, by products in the type of Q."""
    factors = (gram(side),) if side.shape[1] <= _WIDE else (side.transpose(1, 2), side)

    def multiply(q: Tensor) -> Tensor:
        for factor in factors:
            q = factor.to(q.dtype) @ q
        return q

    return multiply


def _still(before: Tensor, now: Tensor) -> bool:
    """Whether no position's variances (p, r) change much any more."""
    least = now.amax(1, keepdim=True).mul(_NOTHING).clamp_min(torch.finfo(now.dtype).tiny)
    change = (now - before).abs() / now.clamp_min(0).maximum(least)
    return bool(change.mean(1).max() < _STILL)
