"""Matrix products through oneDNN on CPUs.

torch gives those in float32 to Intel's MKL, which on other makers' processors is half as fast as oneDNN is at the very
same arithmetic (benchmarks/products.py).
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


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
    return torch.stack([product(each, each) for each in z])


@cache
def _onednn() -> Any | None:
    """Torch's operator, or None where torch was built without oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)
