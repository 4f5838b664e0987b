"""Where batches lie on their way to a detector and back: two berths in the CPU's memory, one place on the device.

With two a batch can be sent while the one before it is computed. Detectors whose pictures and maps have the same
shapes share a staging: the device works for one of them at a time. Stagings stay, a few tens of MB for each shape:
pinned memory must not be given up while a run is recorded, and artifacts are let go of at any time.
"""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.detections import Detections
from models.half_maps import whole
from models.lane import Lane

BERTHS = 2

_staged: dict[tuple[torch.device, "Sizes"], "Staging"] = {}
_staged_lock = threading.Lock()


class Sizes(NamedTuple):
    """The most pictures at a time, their edge, and the (height, width) of their maps."""

    pictures: int
    side: int
    grid: tuple[int, int]


class Berth:
    """One batch's pictures, on the CPU and sent to the device, and where its results come back."""

    def __init__(self, lane: Lane, sizes: Sizes) -> None:
        shape = (sizes.pictures, sizes.side, sizes.side, 3)
        self._tile = (3, sizes.side, sizes.side)
        self._pictures = lane.stage(shape, torch.uint8)
        self._sent = lane.place(shape, torch.uint8)
        self._scores = lane.stage((sizes.pictures,), torch.float32)
        self._maps = lane.stage((sizes.pictures, *sizes.grid), torch.float16)

    def send(self, tiles: Sequence[Tensor]) -> Tensor:
        """Tiles (3, s, s) uint8 -> (b, s, s, 3) on the device, or on its way there. Inside of `lane.sending`.

        Raises ValueError for tiles of other shapes or types, before anything is changed.
        """
        for tile in tiles:
            if tuple(tile.shape) != self._tile or tile.dtype != torch.uint8:
                raise ValueError(
                    f"a tile must be {self._tile} of torch.uint8, not {tuple(tile.shape)} of {tile.dtype}: "
                    "make it with the detector's preprocess.resize"
                )
        for picture, tile in zip(self._pictures, tiles, strict=False):
            picture.copy_(tile.permute(1, 2, 0))  # pixel by pixel, as tiles lie: no transposing
        return self._sent[: len(tiles)].copy_(self._pictures[: len(tiles)], non_blocking=True)

    def fetch(self, scores: Tensor, maps: Tensor) -> None:
        """Scores (b,) and maps (b, h, w) on the device -> on their way here. Inside of `lane.computing`."""
        self._scores[: len(scores)].copy_(scores, non_blocking=True)
        self._maps[: len(maps)].copy_(maps, non_blocking=True)

    def detections(self, count: int) -> Detections:
        """What has come back of the first `count` pictures, in memory of its own."""
        return whole(self._scores[:count].numpy(), self._maps[:count].numpy())


class Staging:
    """What a detector reads (`batch`) and writes (`scores`, `maps`) on the device, and the berths.

    Pictures lie pixel by pixel, (n, s, s, 3): `pictures` gives them as detectors take them. In one thread at a time.
    """

    def __init__(self, lane: Lane, sizes: Sizes) -> None:
        self.batch = lane.place((sizes.pictures, sizes.side, sizes.side, 3), torch.uint8)
        self.scores = lane.place((sizes.pictures,), torch.float32)
        self.maps = lane.place((sizes.pictures, *sizes.grid), torch.float16)
        self._free = [Berth(lane, sizes) for _ in range(BERTHS)]

    def pictures(self, count: int) -> Tensor:
        """The first `count` of `batch`, (b, 3, s, s), channels last."""
        return self.batch[:count].permute(0, 3, 1, 2)

    @property
    def full(self) -> bool:
        """Whether a batch must be finished before another can begin."""
        return not self._free

    def take(self) -> Berth:
        """A berth, to be left again. RuntimeError if there is none: a caller has begun more than `BERTHS` batches."""
        if not self._free:
            raise RuntimeError(f"{BERTHS} batches are under way: finish one before the next is begun")
        return self._free.pop()

    def leave(self, berth: Berth) -> None:
        """Nothing in it is needed any more."""
        self._free.append(berth)


def staging(lane: Lane, sizes: Sizes) -> Staging:
    """The staging of these sizes on a device, made on first use."""
    with _staged_lock:
        key = lane.device, sizes
        if key not in _staged:
            _staged[key] = Staging(lane, sizes)
        return _staged[key]
