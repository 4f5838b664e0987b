"""Maps in float16, as they leave a GPU: half the bytes.

Rounding keeps the order of values and moves one by a 2,048th of itself at most, or by 2⁻²⁵ below 2⁻¹⁴. So a verdict can
differ from float32's only where the score is that near to the threshold.
"""

import torch
from torch import Tensor

_LARGEST = torch.finfo(torch.float16).max


def half_maps(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (b, h, w) float32 -> scores (b,) float32 and the maps in float16, of which the scores are the maxima.

    The maxima of what is transferred, not of what was computed: a score and its map must never lie on different sides
    of a threshold. Finite values beyond float16 become its largest; those that are not finite are faults and stay so.
    """
    bounded = torch.where(maps.isfinite(), maps.clamp(-_LARGEST, _LARGEST), maps)
    halved = bounded.to(torch.float16)
    return halved.flatten(1).amax(1).float(), halved
