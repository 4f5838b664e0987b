"""One thread that runs detectors, on micro-batches of whatever is waiting.

- A caller is admitted first (`admit`): at most `queue_limit` parts of a category are in hand at once, from
  the upload to the commit, so that memory is bounded; one more is refused at once.
- The thread takes a batch as soon as it is free, from the categories in turn, without waiting for it to fill
  (`batch_wait` seconds, if somebody would rather have larger batches than early answers).
- Every part gets exactly one answer, its own. Parts whose request has gone, or whose deadline has passed, are dropped
  before the batch.
- A batch that fails is run again part by part, so that a bad picture cannot fail its neighbours; one that does not
  fit into the device's memory is halved, and so are that artifact's batches from then on.
"""

import asyncio
import logging
import math
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.artifact import Artifact
from service.errors import DeadlinePassed, EngineStopped, JudgingFailed, QueueFull, ServiceError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """What the detector said about one picture, and how long that took."""

    score: float
    map: NDArray[np.float32]  # (h, w)
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0


@dataclass(frozen=True)
class _Part:
    artifact: Artifact
    tile: Tensor  # (3, s, s) uint8
    reading: "Future[Reading]" = field(default_factory=Future)
    deadline: float = math.inf  # of time.perf_counter()
    since: float = field(default_factory=time.perf_counter)


def detect(artifact: Artifact, tiles: Sequence[Tensor]) -> list[Reading]:
    """Tiles (3, s, s) uint8 -> one reading each, in one forward pass on the artifact's device."""
    with torch.inference_mode():
        batch = torch.stack(list(tiles)).to(artifact.device)  # (b, 3, s, s)
        scores, maps = artifact.detector(batch)
        values: list[float] = scores.float().cpu().tolist()
        grids: NDArray[np.float32] = maps.float().cpu().numpy()  # (b, h, w)
    return [Reading(score=value, map=grid) for value, grid in zip(values, grids, strict=True)]


class Engine:
    """Bounded queues, one for each category, and the thread that empties them."""

    def __init__(
        self,
        *,
        batch_limit: int,
        queue_limit: int,
        batch_wait: float = 0.0,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`on_batch` is told the size of every batch, in the engine's thread."""
        self.batch_limit = batch_limit
        self.queue_limit = queue_limit
        self.batch_wait = batch_wait
        self._on_batch = on_batch
        self._fitting: dict[str, int] = {}  # artifact version -> what fits into the device's memory
        self._in_hand: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[_Part]] = OrderedDict()
        self._work = threading.Condition()
        self._open = False
        self._died = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to take parts."""
        self._open = True
        self._thread.start()

    def stop(self, *, timeout: float | None = None) -> None:
        """Take no more parts, finish those that wait, and end the thread; give up after `timeout` seconds."""
        with self._work:
            self._open = False
            self._work.notify_all()
        self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether parts are being taken."""
        return self._open and self._thread.is_alive()

    @property
    def died(self) -> bool:
        """Whether the thread has ended without having been asked to; nothing brings it back."""
        return self._died

    def in_hand(self) -> Mapping[str, int]:
        """Category -> how many of its parts have a place."""
        with self._work:
            return dict(self._in_hand)

    @contextmanager
    def admit(self, category: str, parts: int = 1) -> Iterator[None]:
        """Places for some parts, held until the block is left. Raises QueueFull if there are not so many."""
        with self._work:
            if self._in_hand[category] + parts > self.queue_limit:
                raise QueueFull(
                    f"{self._in_hand[category]} parts of category {category!r} are in hand, and no more than "
                    f"{self.queue_limit} are taken on. Send this one again a little later."
                )
            self._in_hand[category] += parts
        try:
            yield
        finally:
            with self._work:
                self._in_hand[category] -= parts

    async def read(self, artifact: Artifact, tile: Tensor, *, deadline: float = math.inf) -> Reading:
        """The detector's reading of one tile (3, s, s) uint8. Raises JudgingFailed, DeadlinePassed or EngineStopped.

        If the caller is cancelled, or `deadline` (of time.perf_counter()) passes, the part is dropped unless its
        batch has begun.
        """
        part = _Part(artifact, tile, deadline=deadline)
        with self._work:
            if not self.alive:
                raise _stopped()
            self._waiting.setdefault(artifact.manifest.category, deque()).append(part)
            self._work.notify()
        answer = asyncio.wrap_future(part.reading)
        patience = None if deadline == math.inf else max(deadline - time.perf_counter(), 0)
        try:
            done, _ = await asyncio.wait({answer}, timeout=patience)
        except asyncio.CancelledError:
            part.reading.cancel()  # no use if it is being run: then nobody reads its answer
            raise
        if not done and part.reading.cancel():
            raise _too_late(part)
        return await answer

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._answer(batch)
        except BaseException:
            self._died = True
            logger.critical("the engine thread has died: nothing is judged until a restart", exc_info=True)
        finally:
            self._abandon()

    def _next_batch(self) -> list[_Part]:
        """What waits of the next category in turn, up to the limit; empty when stopped and nothing waits."""
        with self._work:
            while True:
                while not self._waiting:
                    if not self._open:
                        return []
                    self._work.wait()
                if self._worth_waiting():
                    continue
                category, queue = self._waiting.popitem(last=False)
                batch = self._take(queue)
                if queue:
                    self._waiting[category] = queue  # behind the other categories
                if batch:
                    return batch

    def _worth_waiting(self) -> bool:
        """Whether the batch that is next should wait for company; if so, it has waited for a while."""
        queue = next(iter(self._waiting.values()))
        rest = queue[0].since + self.batch_wait - time.perf_counter()
        if rest <= 0 or len(queue) >= self.batch_limit or not self._open:
            return False
        self._work.wait(rest)
        return True

    def _take(self, queue: deque[_Part]) -> list[_Part]:
        """Parts of one artifact from the head of a queue; those that nobody waits for any more fall out."""
        batch: list[_Part] = []
        limit = min(self.batch_limit, self._fitting.get(queue[0].artifact.version, self.batch_limit))
        while queue and len(batch) < limit:
            if batch and queue[0].artifact is not batch[0].artifact:
                break
            part = queue.popleft()
            if not part.reading.set_running_or_notify_cancel():
                continue
            if part.deadline < time.perf_counter():
                part.reading.set_exception(_too_late(part))
            else:
                batch.append(part)
        return batch

    def _answer(self, batch: list[_Part]) -> None:
        outcomes: list[Reading | ServiceError] = [_stopped() for _ in batch]  # if the thread dies in between
        try:
            outcomes = self._outcomes(batch)
        finally:
            for part, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Reading):
                    part.reading.set_result(outcome)
                else:
                    part.reading.set_exception(outcome)

    def _outcomes(self, batch: list[_Part]) -> list[Reading | ServiceError]:
        begun = time.perf_counter()
        try:
            readings = detect(batch[0].artifact, [part.tile for part in batch])
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                logger.exception("the device has too little memory for one picture of %s", batch[0].artifact.path)
                return [JudgingFailed("The device has too little memory to judge this picture: there is no verdict.")]
            return self._halved(batch)
        except Exception as error:
            if len(batch) == 1:
                logger.exception("the detector of %s failed on a picture", batch[0].artifact.path)
                return [JudgingFailed("The detector failed on this picture, so there is no verdict.")]
            logger.warning("a batch of %d failed (%s); its parts are run one by one", len(batch), error)
            return [outcome for part in batch for outcome in self._outcomes([part])]
        self._on_batch(len(batch))
        seconds = time.perf_counter() - begun
        return [
            Reading(reading.score, reading.map, queue_seconds=begun - part.since, inference_seconds=seconds)
            for part, reading in zip(batch, readings, strict=True)
        ]

    def _halved(self, batch: list[_Part]) -> list[Reading | ServiceError]:
        half = len(batch) // 2
        version = batch[0].artifact.version
        self._fitting[version] = half
        logger.warning("%d pictures do not fit into the device's memory; %s is run with %d", len(batch), version, half)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self._outcomes(batch[:half]) + self._outcomes(batch[half:])

    def _abandon(self) -> None:
        """Answer whatever is left when the thread ends."""
        with self._work:
            self._open = False
            left = [part for queue in self._waiting.values() for part in queue]
            self._waiting.clear()
        for part in left:
            if part.reading.set_running_or_notify_cancel():
                part.reading.set_exception(_stopped())


def _too_late(part: _Part) -> DeadlinePassed:
    waited = time.perf_counter() - part.since
    return DeadlinePassed(
        f"The part had waited for {waited:.1f} seconds when its deadline passed, and was not judged. Send it again, "
        "less often, or with a later deadline."
    )


def _stopped() -> EngineStopped:
    return EngineStopped("The service stopped before this part was judged. Send it again when it is ready.")
