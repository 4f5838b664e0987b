"""Leading eigenpairs of many covariances: exactly where matrices are small, iterated for where they are not."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.products import gram

_EXACT = 512  # the smaller side of what is decomposed exactly; beyond it the leading directions are iterated for
_SPARE, _ITERATIONS = 8, 4  # of that iteration: directions beyond those that are kept, and rounds


def leading(z: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Leading eigenpairs of each position's covariance from centred z (p, n, k).

    Values (p, r) descending, vectors (p, k, r). Where there are fewer directions than `rank`, the rest is zero.
    """
    n, k = z.shape[1:]
    available = min(rank, n, k)
    if min(n, k) > _EXACT and available + _SPARE < min(n, k) // 2:
        values, vectors = _iterated(z, available + _SPARE)
    elif k <= n:
        values, vectors = torch.linalg.eigh(gram(z.transpose(1, 2)))
        values, vectors = values.flip(1), vectors.flip(2)
    else:
        values, left = torch.linalg.eigh(gram(z))
        values, left = values.flip(1), left[..., -available:].flip(2)
        # A centred z has n - 1 directions: the last value is zero but for rounding, and has no direction.
        seen = values[:, :available] > values[:, :1] * 1e-6
        # Normalised, not divided by the root of the value: of small values rounding has left little.
        vectors = F.normalize(z.transpose(1, 2) @ left, dim=1) * seen.unsqueeze(1)
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
