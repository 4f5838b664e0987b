"""Runs a detector on a batch: from uint8 pictures in the CPU's memory to scores and maps there.

The one interface between who has pictures (service, evaluation, benchmarks) and how a device is kept busy.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.detector import Detector


class Detections(NamedTuple):
    """Scores (b,) and the maps (b, h, w) whose maxima they are, float32."""

    scores: NDArray[np.float32]
    maps: NDArray[np.float32]


class Runner(Protocol):
    """What runs a detector. One thread at a time."""

    def __call__(self, tiles: Sequence[Tensor]) -> Detections:
        """Tiles (3, s, s) uint8 on the CPU, at least one -> what the detector says of each."""
        ...


class PlainRunner:
    """One forward pass for the whole batch, and the device is waited for."""

    def __init__(self, detector: Detector, device: torch.device) -> None:
        self._detector = detector
        self._device = device

    def __call__(self, tiles: Sequence[Tensor]) -> Detections:
        """As `Runner` says."""
        with torch.inference_mode():
            # Pixel by pixel, as tiles lie and as the network takes them.
            batch = torch.stack([tile.permute(1, 2, 0) for tile in tiles]).permute(0, 3, 1, 2)  # (b, 3, s, s)
            score, score_map = self._detector(batch.to(self._device))
            return Detections(score.float().cpu().numpy(), score_map.float().cpu().numpy())


def runner_for(detector: Detector, device: torch.device) -> Runner:
    """What runs a detector, which is on `device`, best there."""
    return PlainRunner(detector, device)
