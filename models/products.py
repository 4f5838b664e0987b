"""Matrix products through oneDNN on CPUs.

torch gives those in float32 to Intel's MKL, which on other makers' processors is half as fast as oneDNN is at the very
same arithmetic (benchmarks/products.py).
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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
    """Z·Zᵀ of each matrix: (p, n, k) -> (p, n, n)."""
    if z.device.type != "cpu":
        return z @ z.transpose(1, 2)
    (n, k), found = z.shape[1:], z.new_empty(len(z), z.shape[1], z.shape[1])
    half = n // 2 if k > _LONG * n else 0
    for each, there in zip(z, found, strict=True):
        there[half:] = product(each[half:], each)
        if half:  # one quarter of the products is another one's mirror image
            there[:half, :half] = product(each[:half], each[:half])
            there[:half, half:] = there[half:, :half].T
    return found


@cache
def _onednn() -> Any | None:
    """Torch's operator, or None where torch was built without oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)
