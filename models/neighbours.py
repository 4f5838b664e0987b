"""How far patches are from the vectors of a bank: compared by one matrix product, measured by their differences.

Shared by the scorers that keep a bank. A product tells which vectors are near, quickly, but its difference loses the
digits of a small distance; so distances to the few that were found are taken from the vectors themselves.
"""

import torch
from torch import Tensor


def compare(patches: Tensor, vectors: Tensor) -> Tensor:
    """‖v‖²/2 - y·v of patches y (q, d) and vectors v (m, d): (q, m), which orders the v of a y as ‖y - v‖ does.

    Both are to be given less some vector amid the bank's, lest what they have in common drown their differences in
    rounding.
    """
    return torch.addmm(vectors.square().sum(dim=1) / 2, patches, vectors.T, alpha=-1)


def squared_distances(patches: Tensor, vectors: Tensor) -> Tensor:
    """‖y - v‖² of each patch (q, d) from its own vectors (q, k, d): (q, k), never negative, and differentiable."""
    return (patches.unsqueeze(1) - vectors).square().sum(dim=2)
