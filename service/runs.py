"""Running a batch, and running what becomes of it if that fails. In the engine's thread only.

A batch that fails is run again part by part, so that a bad picture cannot fail its neighbours. One that does not fit
into the device's memory is halved, and so are that artifact's batches for a while. Both happen after the failure has
been forgotten: its traceback would hold on to the tensors of the batch that failed.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.artifact import Artifact
from models.cuda_lane import give_back_memory
from models.memory_shortage import short_of_memory
from models.runner import Detections
from service.errors import JudgingFailed, ServiceError

logger = logging.getLogger(__name__)

_LESS_FOR = 60.0  # seconds, until a device that was short of memory is given whole batches again
_HOPELESS = 16  # pictures in a row that failed on a CUDA device: its context is lost, and only a new process gets one


@dataclass(frozen=True)
class Reading:
    """What the detector said about one picture, and how long that took."""

    score: float
    map: NDArray[np.float32]  # (h, w)
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0


Outcome = Reading | ServiceError


class DeviceLost(RuntimeError):
    """Every picture fails on this device: the engine ends, so that whoever watches the process starts it anew."""


@dataclass(frozen=True)
class Begun:
    """A batch that an artifact's device works at, or has waiting. `rest` waits for what comes of it, once.

    `since` is of time.perf_counter(): a batch that is begun beside another takes until both are done.
    """

    artifact: Artifact
    tiles: Sequence[Tensor]  # (3, s, s) uint8 each
    rest: Callable[[], Detections]
    since: float


def detect(artifact: Artifact, tiles: Sequence[Tensor]) -> list[Reading]:
    """Tiles (3, s, s) uint8 -> one reading each, as one batch on the artifact's device."""
    return _readings(artifact.runner(tiles))


def _readings(detections: Detections) -> list[Reading]:
    return [Reading(score=float(score), map=grid) for score, grid in zip(*detections, strict=True)]


class Runs:
    """Runs batches, and remembers what a device could not do."""

    def __init__(self, on_batch: Callable[[int], None]) -> None:
        self._on_batch = on_batch
        self._fitting: dict[str, tuple[int, float]] = {}  # artifact version -> most pictures, and until when
        self._failed_in_a_row = 0

    def fitting(self, version: str) -> float:
        """The most pictures that are known to fit into the device's memory with this artifact; infinite if not."""
        most, until = self._fitting.get(version, (0, 0.0))
        return most if time.perf_counter() < until else float("inf")

    def begin(self, artifact: Artifact, tiles: Sequence[Tensor]) -> Begun:
        """Begin a batch of tiles (3, s, s) uint8, for `finish`. It does not fail."""
        since = time.perf_counter()
        try:
            return Begun(artifact, tiles, artifact.runner.begin(tiles), since)
        except Exception as error:  # it is run again when its turn comes, and what fails then is dealt with there
            logger.warning("a batch of %d could not begin (%s)", len(tiles), str(error).partition("\n")[0])
        return Begun(artifact, tiles, partial(artifact.runner, tiles), since)

    def finish(self, begun: Begun) -> list[Outcome]:
        """One outcome for each of a batch's tiles, in their order."""
        artifact, tiles = begun.artifact, begun.tiles
        try:
            readings = _readings(begun.rest())
        except Exception as error:
            short = short_of_memory(error)
            if len(tiles) == 1:
                return [self._failed(artifact, short_of_memory=short)]
            logger.warning("a batch of %d failed (%s)", len(tiles), str(error).partition("\n")[0])
        else:
            self._failed_in_a_row = 0
            self._on_batch(len(tiles))
            seconds = time.perf_counter() - begun.since
            return [replace(reading, inference_seconds=seconds) for reading in readings]
        if short:
            return self._halved(artifact, tiles)
        return [outcome for tile in tiles for outcome in self._again(artifact, [tile])]

    def check_device(self, artifact: Artifact) -> None:
        """Raise DeviceLost if nothing works on the artifact's CUDA device any more."""
        if artifact.device.type == "cuda" and self._failed_in_a_row >= _HOPELESS:
            raise DeviceLost(f"{self._failed_in_a_row} pictures in a row failed on {artifact.device}")

    def _halved(self, artifact: Artifact, tiles: Sequence[Tensor]) -> list[Outcome]:
        half = (len(tiles) + 1) // 2
        self._fitting[artifact.version] = half, time.perf_counter() + _LESS_FOR
        give_back_memory(artifact.device)
        return self._again(artifact, tiles[:half]) + self._again(artifact, tiles[half:])

    def _again(self, artifact: Artifact, tiles: Sequence[Tensor]) -> list[Outcome]:
        return self.finish(self.begin(artifact, tiles))

    def _failed(self, artifact: Artifact, *, short_of_memory: bool) -> JudgingFailed:
        """To be called while the failure is handled: it is logged with its traceback."""
        self._failed_in_a_row += 1
        logger.exception("the detector of %s failed on a picture", artifact.path)
        why = (
            "The device has too little memory to judge this picture" if short_of_memory else "The detector failed on it"
        )
        return JudgingFailed(f"{why}, so there is no verdict.")
