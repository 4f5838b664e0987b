"""Runs a detector on a GPU: recorded runs of a few batch sizes, and pictures sent while the batch before is computed.

- A batch is filled up to the next of the sizes in `models.buckets`, or cut where it is larger than the largest.
- A size is computed step by step at first: that is an answer already, and warms up what a recording needs. When it
  comes again it is recorded, as a CUDA graph, and from then on it is one call. So no part waits for sizes that nobody
  asks for, and everything happens in the thread that judges. No batch waits for another's recording: it is made when
  nothing else is under way, and after one that had to be put off the runner wants its next batch alone, once.
- Pictures go over as uint8 and are normalised there. They are resized before, on the CPU: a 1024-pixel picture has
  twenty times the bytes of its 224-pixel tile, and threads that decode it have it in their cache.
- Maps come back in float16 (`models.half_maps`).
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from models.buckets import bucket, buckets, parts
from models.detections import Detections, joined
from models.detector import Detector
from models.half_maps import half_maps
from models.lane import Lane, Recording, Work
from models.staging import BERTHS, Berth, Sizes, Staging, staging


class _Batch:
    """A batch under way. Its berth is left with its result, or when it is dropped."""

    def __init__(self, stage: Staging, berth: Berth, count: int, lane: Lane) -> None:
        self._stage = stage
        self._lane = lane
        lane.under_way += 1
        self._berth = berth
        self._count = count
        self.done: Work | None = None

    def result(self) -> Detections:
        """Wait for it."""
        try:
            if self.done is not None:
                self.done()
            return self._berth.detections(self._count)
        finally:
            self.drop()

    def drop(self) -> None:
        """Nobody waits for it. What is still under way is put in order before whatever uses the berth next."""
        self._stage.leave(self._berth)
        self._lane.under_way -= 1


class GraphRunner:
    """A detector on the device of `lane`. In one thread at a time, of all runners there."""

    def __init__(self, detector: Detector, lane: Lane) -> None:
        if detector.smoothing.keep is None:
            raise ValueError("a detector without a grid for its maps cannot be recorded")
        height, width = detector.smoothing.keep.shape
        self._detector = detector
        self._lane = lane
        self._buckets = buckets(detector.at_once)
        self._sizes = Sizes(self._buckets[-1], detector.preprocess.config.taken, (height, width))
        self._stage: Staging | None = None
        self._warm: set[int] = set()
        self._recorded: dict[int, Recording] = {}
        self._impossible: set[int] = set()
        self._put_off = False  # a recording, since another batch was under way
        lane.settle()

    @property
    def ahead(self) -> int:
        """As `Runner` says; 0 where a recording was put off, or under full load none would ever be made."""
        return 0 if self._put_off else BERTHS - 1

    def __call__(self, tiles: Sequence[Tensor]) -> Detections:
        """As `Runner` says."""
        return self.begin(tiles)()

    def begin(self, tiles: Sequence[Tensor]) -> Callable[[], Detections]:
        """As `Runner` says."""
        cut = [tiles[some] for some in parts(len(tiles), self._buckets)]
        return partial(self._finish, self._start(cut[0]), cut[1:])

    def _finish(self, first: _Batch, rest: Sequence[Sequence[Tensor]]) -> Detections:
        """What was begun, and the rest of it, each part sent while the one before is computed."""
        found: list[Detections] = []
        under_way = deque([first])
        try:
            for tiles in rest:
                while under_way and self._staging().full:
                    found.append(under_way.popleft().result())
                under_way.append(self._start(tiles))
            while under_way:
                found.append(under_way.popleft().result())
        finally:
            for batch in under_way:  # after a failure
                batch.drop()
        return joined(found)

    @torch.inference_mode()
    def _start(self, tiles: Sequence[Tensor]) -> _Batch:
        """Put all that a batch needs in order, and wait for nothing."""
        stage = self._staging()
        berth = stage.take()
        batch = _Batch(stage, berth, len(tiles), self._lane)
        try:
            with self._lane.sending():
                sent = berth.send(tiles)
            with self._lane.computing():
                stage.batch[: len(tiles)].copy_(sent)
                self._run(stage, bucket(len(tiles), self._buckets))
                berth.fetch(stage.scores[: len(tiles)], stage.maps[: len(tiles)])
                batch.done = self._lane.mark()
        except BaseException:
            batch.drop()
            raise
        return batch

    def _run(self, stage: Staging, size: int) -> None:
        """Judge the first `size` pictures of `stage.batch`; behind those of a batch lie those of some other one."""
        work = partial(self._compute, stage, size)
        alone = self._lane.under_way == 1
        self._put_off = self._put_off and not alone
        recorded = self._recorded.get(size)
        if recorded is None or not recorded.alive:
            recorded = self._record(size, work, alone=alone)
        (recorded or work)()
        self._warm.add(size)

    def _record(self, size: int, work: Work, *, alone: bool) -> Recording | None:
        """A recording, if it is time for one: of what was computed before, while nothing else is under way."""
        self._recorded.pop(size, None)
        if size not in self._warm or size in self._impossible:
            return None
        if not alone:
            self._put_off = True
            return None
        recorded = self._lane.record(work)
        if recorded is None:
            self._impossible.add(size)
        else:
            self._recorded[size] = recorded
        return recorded

    def _compute(self, stage: Staging, size: int) -> None:
        scores, maps = half_maps(self._detector(stage.pictures(size)).map)
        stage.scores[:size].copy_(scores)
        stage.maps[:size].copy_(maps)

    def _staging(self) -> Staging:
        if self._stage is None:
            self._stage = staging(self._lane, self._sizes)
        return self._stage
