"""How far z is from what the directions of good parts explain of it: the distance M of `models.compact_gaussian`.

M² is a difference of which as little as λ/(s + λ) is left, where s is the variance of good parts along a direction. A
part that lies far out there must not pass because no digits are left: in float32 there are enough, in half precision it
is a sum of squares that is taken.
"""

import torch
from torch import Tensor

_BLOCK = 2**19  # floats at a time where something is turned into float32: 2 MB


def residual(z: Tensor, directions: Tensor, corrections: Tensor, *, shrinkage: float) -> Tensor:
    """M, (p, b), of whitened features z (p, b, k) under each position's directions (p, k, r). Not for half precision.

    Directions are of any type and length: `corrections` (p, r) make s/(s + λ) < 1 of their squared lengths, exactly, as
    s/λ times what is missing would end up in M². A block of positions at a time.
    """
    step = max(1, _BLOCK // directions[0].numel())
    blocks = zip(z.split(step), directions.split(step), corrections.split(step), strict=True)
    explained = [
        (torch.bmm(some, stored.to(z.dtype)).square() * lengths.unsqueeze(1)).sum(2) for some, stored, lengths in blocks
    ]
    left = z.square().sum(2) - torch.cat(explained)
    left = torch.where(
        left == -torch.inf, torch.nan, left.clamp_min(0)
    )  # explained beyond all numbers: not by good parts
    return (left / shrinkage).sqrt()


def residual_in_half(z: Tensor, directions: Tensor, variances: Tensor, *, shrinkage: float) -> Tensor:
    """The same in half precision: M, (p, b) float32, of z (p, b, k), directions (p, k, r) of length 1 or 0.

    `variances` (p, r) are the shares λ/(s + λ) of what lies along a direction that are not explained by it: M² is
    (‖z - U·Uᵀz‖² + Σ λ/(s + λ)·(uᵀz)²)/λ. What rounding leaves of U·Uᵀz only adds to it.
    """
    along = torch.bmm(z, directions)
    left = torch.baddbmm(z, along, directions.transpose(1, 2), alpha=-1)
    varied = (along.float().square() * variances.unsqueeze(1)).sum(2)
    outside: Tensor = torch.linalg.vector_norm(left, dim=2, dtype=torch.float32).square()
    return ((outside + varied) / shrinkage).sqrt()
