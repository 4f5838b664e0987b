"""Leading eigenpairs of many covariances: exactly where matrices are small, iterated for where they are not.

Positions that lie beside one another see nearly the same, so that an iteration begins where the last one ended.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import RecipeError
from models.products import gram, product

_SPARE = 16  # directions that are iterated for beyond those that are kept: the last ones are rough
_ANY = 8  # directions at random that a block begins with: a position may vary where its neighbours do not
_LARGE = 3  # times as many directions as are iterated for: up to there all are found nearly as fast
_WIDE = 512  # of the smaller side: beyond it two products with z cost less than its Gram matrix
_STILL = 0.02  # of a direction's variance: rounds end when these change by less
_ROUNDS = 30  # at most; beyond them matrices are decomposed
_NOTHING = 1e-6  # of the largest variance
_TINY = 1e-30


def iterates(n: int, k: int, rank: int) -> bool:
    """Whether it is worth while to iterate for the leading eigenpairs of n vectors of k numbers."""
    return min(n, k) > _LARGE * (rank + _SPARE)


class Leading:
    """Finds the `rank` leading eigenpairs of covariances, of one block of neighbouring positions after the other.

    All blocks have as many vectors of as many numbers. `iterated`: as `iterates` says.
    """

    def __init__(self, rank: int, *, iterated: bool) -> None:
        self.rank, self.iterated = rank, iterated
        self._basis: Tensor | None = None  # (s, m): the last position's, leading ones first

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenpairs of each position's covariance from centred z (p, n, k), bfloat16 or float32; they are float32.

        Values (p, r) descending, vectors (p, k, r). Where there are fewer directions than `rank`, the rest is zero. The
        last of what is iterated for are rough: their values are at most the variances along them. Raises RecipeError
        where z is not finite, or its squares are not.
        """
        n, k = z.shape[1:]
        side = z if n <= k else z.transpose(1, 2)  # (p, s, o): the smaller side first
        values, found = self._iterated(side) if self.iterated else _decomposed(side)
        available = min(self.rank, n, k)
        values, found = values[:, :available], found[..., :available]
        if n <= k:
            # A centred z has n - 1 directions: the last value is zero but for rounding, and has no direction.
            seen = values > values[:, :1] * _NOTHING
            # Normalised, not divided by the root of the value: of small values rounding has left little.
            found = F.normalize(_products(z, found), dim=1) * seen.unsqueeze(1)
        missing = (0, self.rank - available)
        return F.pad(values.clamp_min(0) / max(n - 1, 1), missing), F.pad(found, missing)

    def _iterated(self, side: Tensor) -> tuple[Tensor, Tensor]:
        """Leading eigenpairs of S·Sᵀ, (p, m) and (p, s, m), by subspace iteration with a polynomial of degree two.

        With G = S·Sᵀ each round takes (G² - aG + a²/8)·Q for Q: a is about the largest variance that is not looked for,
        and of all such polynomials this one, Chebyshev's, is smallest between 0 and a beside what it is beyond (Y.
        Saad, Numerical Methods for Large Eigenvalue Problems, SIAM 2011, chapters 4, 5 and 7). Rounds end by the
        eigenvalues of G within Q, which do not depend on how Q is turned.
        """
        count, (_, s, _) = self.rank + _SPARE, side.shape
        multiply, basis = _multiplication(side), self._beginning(side).expand(len(side), -1, -1)
        # Neighbours that see a tenth of the variance that as many directions at random would are no beginning.
        least = torch.linalg.vector_norm(side, dim=(1, 2), dtype=torch.float32).square() * (0.1 * count / s)
        before: Tensor | None = None
        for number in range(_ROUNDS):
            once = multiply(basis)
            if number == 0:  # nothing is still yet, and about how much there is will do
                values = (once * basis).sum(1)
                if not bool((values[:, _ANY:].sum(1) >= least).all()):
                    break
                unwanted = values[:, -_SPARE // 2 :]
            else:
                if not once.isfinite().all():
                    break
                values, turn = torch.linalg.eigh(basis.transpose(1, 2) @ once)  # ascending
                if before is not None and _still(before, values[:, -self.rank :]):
                    return self._kept(values.flip(1), (basis @ turn).flip(2))
                before, unwanted = values[:, -self.rank :], values[:, : _SPARE // 2]
            a = unwanted.mean(1).view(-1, 1, 1)
            largest = values.amax(1).view(-1, 1, 1).clamp_min(_TINY)  # by which all is divided, or squares overflow
            once /= largest
            basis = torch.linalg.qr(multiply(once).sub_(once.mul_(a)).add_(basis * (a * (a / (8 * largest))))).Q
        values, found = _decomposed(side)
        return self._kept(values[:, :count], found[..., :count])

    def _beginning(self, side: Tensor) -> Tensor:
        """Orthonormal (s, m) that a block begins from: the last position's leading directions, or the first's.

        Before them are some at random: there a round moves what all the others miss, and sees it move.
        """
        known = _decomposed(side[:1])[1][0, :, : self.rank + _SPARE] if self._basis is None else self._basis
        always_the_same = torch.Generator().manual_seed(0)
        some = torch.randn(len(known), _ANY, generator=always_the_same).to(known)
        begun: Tensor = torch.linalg.qr(torch.cat([some, known[:, :-_ANY]], dim=1)).Q
        return begun

    def _kept(self, values: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenpairs as they are, of which the last position's are what the next block begins from."""
        self._basis = found[-1]
        return values, found


def _decomposed(side: Tensor) -> tuple[Tensor, Tensor]:
    """All eigenpairs of S·Sᵀ, (p, s) and (p, s, s), the leading first. Raises RecipeError where it is not finite."""
    matrix = gram(side)
    if not matrix.isfinite().all():  # they would be written as no directions, and parts be at no distance
        raise RecipeError("The features of the good pictures are too large: look for what is wrong in --weights.")
    values, found = torch.linalg.eigh(matrix)
    return values.flip(1), found.flip(2)


def _multiplication(side: Tensor) -> Callable[[Tensor], Tensor]:
    """Q -> S·Sᵀ·Q."""
    if side.shape[1] > _WIDE:
        factor = side.float()
        return lambda q: factor @ (factor.transpose(1, 2) @ q)
    matrix = gram(side)
    return lambda q: matrix @ q


def _products(z: Tensor, v: Tensor) -> Tensor:
    """Zᵀ·V, (p, k, r) float32; on CPUs position by position: what is float32 of z stays in the cache."""
    if z.device.type != "cpu":
        return z.float().transpose(1, 2) @ v
    found = v.new_empty(len(z), v.shape[2], z.shape[2])
    for there, each, vectors in zip(found, z, v, strict=True):
        there[:] = product(vectors.T.contiguous(), each.float().T)
    return found.transpose(1, 2)


def _still(before: Tensor, now: Tensor) -> bool:
    """Whether no position's variances (p, r), ascending, change much: on average, and each of the larger half."""
    least = now.amax(1, keepdim=True).mul(_NOTHING).clamp_min(torch.finfo(now.dtype).tiny)
    change = (now - before).abs() / now.clamp_min(0).maximum(least)
    return bool(change.mean(1).max() < _STILL and change[:, change.shape[1] // 2 :].max() < _STILL)
