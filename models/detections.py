"""What a detector said of a batch, in the CPU's memory."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Detections(NamedTuple):
    """Scores (b,) and the maps (b, h, w) whose maxima they are, float32."""

    scores: NDArray[np.float32]
    maps: NDArray[np.float32]


def joined(some: list[Detections]) -> Detections:
    """Those of several batches, one after the other."""
    if len(some) == 1:
        return some[0]
    return Detections(np.concatenate([each.scores for each in some]), np.concatenate([each.maps for each in some]))
