"""Matrix products through oneDNN on CPUs.

torch gives those in float32 to Intel's MKL, which on other makers' processors is half as fast as oneDNN is at the very
same arithmetic (benchmarks/products.py).
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.loops import bfloat16_products

_FEW = 256  # vectors whose products are as fast all at once
_LONG = 2  # times as long as they are many: from there on a vector's products cost more than copying them


def product(a: Tensor, b: Tensor) -> Tensor:
    """A·Bᵀ: (m, k), (n, k) -> (m, n), in the type of both."""
    onednn = _onednn() if a.device.type == "cpu" and a.dtype != torch.float64 else None
    found: Tensor = F.linear(a, b) if onednn is None else onednn(_dense(a), _dense(b), None, "none", [], "")
    return found


def _dense(matrix: Tensor) -> Tensor:
    """Without gaps: with something else between its rows oneDNN takes a thousand times as long."""
    return matrix if matrix.is_contiguous() or matrix.T.is_contiguous() else matrix.contiguous()


def gram(z: Tensor) -> Tensor:
    """Z·Zᵀ of each matrix: (p, n, k) -> (p, n, n), in the type of z; float32 of bfloat16."""
    if z.dtype == torch.bfloat16:
        if z.device.type == "cpu" and bfloat16_products.ready():
            return bfloat16_products.gram(z)
        z = z.float()
    if z.device.type != "cpu":
        return z @ z.transpose(1, 2)
    found = z.new_empty(len(z), z.shape[1], z.shape[1])
    for each, there in zip(z, found, strict=True):
        _put_gram(each, there)
    return found


def _put_gram(z: Tensor, there: Tensor) -> None:
    """Z·Zᵀ of a matrix: what is above the diagonal is what is below it."""
    n, k = z.shape
    half = n // 2
    if n <= _FEW or k <= _LONG * n:
        there[:] = product(z, z)
        return
    _put_gram(z[:half], there[:half, :half])
    _put_gram(z[half:], there[half:, half:])
    there[half:, :half] = product(z[half:], z[:half])
    there[:half, half:] = there[half:, :half].T


@cache
def _onednn() -> Any | None:
    """Torch's operator, or None where torch was built without oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)
