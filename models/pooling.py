"""Average pooling of the levels on their own grids: each position speaks for its neighbourhood.

PatchCore's local aggregation (Roth et al., CVPR 2022), here for every scorer: a defect is found where it is, not
where the grid happens to cut it, and good parts that lie a little off differ less. The scorers differ at the border.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def pooled(levels: Sequence[Tensor], kernel: int) -> tuple[Tensor, ...]:
    """Levels (b, c_i, h_i, w_i) -> the same shapes, each value the mean of `kernel` x `kernel` around it.

    `kernel` is odd; 1 changes nothing. At the border the mean is over the neighbours that exist.
    """
    if kernel == 1:
        return tuple(levels)
    return tuple(
        F.avg_pool2d(level, kernel, stride=1, padding=kernel // 2, count_include_pad=False) for level in levels
    )


def pooled_with_zeros(levels: Sequence[Tensor], kernel: int) -> tuple[Tensor, ...]:
    """The same, but beyond the border are zeros that count as neighbours: it marks what is near the border as such.

    So do the authors of PatchCore and of CFA.
    """
    return tuple(F.avg_pool2d(level, kernel, stride=1, padding=kernel // 2) for level in levels)
