"""Maps in float16, as they leave a GPU: half the bytes. Scores leave it in float32, and decide.

Rounding keeps the order of values and moves one by a 2,048th of itself at most, or by 2⁻²⁵ below 2⁻¹⁴. It could move a
maximum across a threshold, so what has come back is made to fit the score: a verdict is float32's.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.detections import Detections

_LARGEST = torch.finfo(torch.float16).max


def half_maps(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (b, h, w) float32 -> their maxima (b,) float32, which are the scores, and the maps in float16.

    Finite values beyond float16 become its largest; those that are not finite are faults and stay so.
    """
    bounded = torch.where(maps.isfinite(), maps.clamp(-_LARGEST, _LARGEST), maps)
    return maps.flatten(1).amax(1).float(), bounded.to(torch.float16)


def whole(scores: NDArray[np.float32], halved: NDArray[np.float16]) -> Detections:
    """What `half_maps` made, in the CPU's memory -> detections of which each score is its map's maximum, exactly.

    Values that were rounded up beyond the score are lowered to it, and the highest becomes the score. Faults stay.
    """
    maps = np.minimum(halved.astype(np.float32), scores[:, None, None])
    flat = maps.reshape(len(maps), -1)
    flat[np.arange(len(flat)), flat.argmax(axis=1)] = scores
    return Detections(scores.copy(), maps)
