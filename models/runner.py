"""Runs a detector on a batch: from uint8 pictures in the CPU's memory to scores and maps there.

The one interface between who has pictures (service, evaluation, benchmarks) and how a device is kept busy.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from models.cuda_lane import lane_of
from models.detections import Detections
from models.detector import Detector
from models.graph_runner import GraphRunner

__all__ = ["Detections", "PlainRunner", "Runner", "runner_for"]


class Runner(Protocol):
    """What runs a detector. One thread at a time, for all runners on a device."""

    @property
    def ahead(self) -> int:
        """How many batches may be begun while another is under way; 0 where nothing would be gained by it."""
        ...

    def __call__(self, tiles: Sequence[Tensor]) -> Detections:
        """Tiles (3, s, s) uint8 on the CPU, at least one -> what the detector says of each."""
        ...

    def begin(self, tiles: Sequence[Tensor]) -> Callable[[], Detections]:
        """The same in two steps: what is given back waits for the results, and must be called, once."""
        ...


class PlainRunner:
    """One forward pass for the whole batch, and the device is waited for."""

    ahead = 0

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

    def begin(self, tiles: Sequence[Tensor]) -> Callable[[], Detections]:
        """As `Runner` says; all of it is done in the second step."""
        return partial(self, tiles)


def runner_for(detector: Detector, device: torch.device) -> Runner:
    """What runs a detector, which is on `device`, best there."""
    return GraphRunner(detector, lane_of(device)) if device.type == "cuda" else PlainRunner(detector, device)
