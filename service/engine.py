"""One thread that runs detectors, on micro-batches of whatever is waiting.

- A caller is admitted first (`admit`): at most `queue_limit` parts of a category are in hand at once, from
  the upload to the commit, so that memory is bounded; one more is refused at once.
- The thread takes a batch as soon as it is free, from the categories in turn, without waiting for it to fill
  (`batch_wait` seconds, if somebody would rather have larger batches than early answers).
- Where a device gains by it (`Runner.ahead`), a batch that is full is begun while the one before it is under way. One
  that is not can wait: parts that come meanwhile will join it.
- Every part gets exactly one answer, its own. Parts whose request has gone, or whose deadline has passed, are dropped
  before the batch.
- What becomes of a batch that fails, `service.runs` says.
"""

import asyncio
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from models.artifact import Artifact
from models.cores import compute_with
from service.errors import DeadlinePassed, EngineStopped, QueueFull
from service.runs import Begun, Outcome, Reading, Runs
from service.worker import Worker


@dataclass(frozen=True)
class _Part:
    artifact: Artifact
    tile: Tensor  # (3, s, s) uint8
    reading: "Future[Reading]" = field(default_factory=Future)
    deadline: float = math.inf  # of time.perf_counter()
    since: float = field(default_factory=time.perf_counter)


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
        self._runs = Runs(on_batch)
        self._in_hand: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[_Part]] = OrderedDict()
        self._under_way: deque[tuple[list[_Part], Begun]] = deque()  # in the thread only
        self._threads = torch.get_num_threads()
        self._worker = Worker("engine", self._run, abandon=self._abandon)
        self._work = self._worker.changed

    def start(self) -> None:
        """Begin to take parts."""
        self._worker.start()

    def stop(self, *, timeout: float | None = None) -> None:
        """Take no more parts, finish those that wait, and end; give up after `timeout` seconds."""
        self._worker.stop(timeout=timeout)

    @property
    def alive(self) -> bool:
        """Whether parts are being taken."""
        return self._worker.alive

    @property
    def died(self) -> bool:
        """Whether it has ended without having been asked to; nothing brings it back."""
        return self._worker.died

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
        compute_with(self._threads)
        while batch := self._next_batch():
            self._begin(batch)
            while self._under_way:
                if batch := self._full_batch():
                    self._begin(batch)
                self._answer()

    def _next_batch(self) -> list[_Part]:
        """What waits of the next category in turn, up to the limit; empty when stopped and nothing waits."""
        with self._work:
            while True:
                while not self._waiting:
                    if not self._worker.open:
                        return []
                    self._work.wait()
                if not self._worth_waiting() and (batch := self._take_next()):
                    return batch

    def _full_batch(self) -> list[_Part]:
        """The next batch if it is full and may be begun beside those that are under way, without waiting; or empty."""
        with self._work:
            if not self._waiting:
                return []
            queue = next(iter(self._waiting.values()))
            ready = self._ready(queue)
            full = bool(ready) and len(ready) >= self._limit(ready[0].artifact)
            return self._take_next() if full and len(self._under_way) <= ready[0].artifact.runner.ahead else []

    def _ready(self, queue: deque[_Part]) -> list[_Part]:
        """What `_take` would take, as things are: parts of one artifact that somebody still waits for."""
        ready: list[_Part] = []
        now = time.perf_counter()
        for part in queue:
            if part.reading.cancelled() or part.deadline < now:
                continue
            if ready and (part.artifact is not ready[0].artifact or len(ready) >= self._limit(part.artifact)):
                break
            ready.append(part)
        return ready

    def _take_next(self) -> list[_Part]:
        category, queue = self._waiting.popitem(last=False)
        batch = self._take(queue)
        if queue:
            self._waiting[category] = queue  # behind the other categories
        return batch

    def _limit(self, artifact: Artifact) -> float:
        return min(self.batch_limit, self._runs.fitting(artifact.version))

    def _worth_waiting(self) -> bool:
        """Whether the batch that is next should wait for company; if so, it has waited for a while."""
        queue = next(iter(self._waiting.values()))
        rest = queue[0].since + self.batch_wait - time.perf_counter()
        if rest <= 0 or len(queue) >= self.batch_limit or not self._worker.open:
            return False
        self._work.wait(rest)
        return True

    def _take(self, queue: deque[_Part]) -> list[_Part]:
        """Parts of one artifact from the head of a queue; those that nobody waits for any more fall out."""
        batch: list[_Part] = []
        while queue and (not batch or len(batch) < self._limit(batch[0].artifact)):
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

    def _begin(self, batch: list[_Part]) -> None:
        try:
            begun = self._runs.begin(batch[0].artifact, [part.tile for part in batch])
        except BaseException:  # the thread dies
            _stop(batch)
            raise
        self._under_way.append((batch, begun))

    def _answer(self) -> None:
        """Finish the batch that is under way for longest, and answer its parts."""
        batch, begun = self._under_way.popleft()
        outcomes: list[Outcome] = [_stopped() for _ in batch]  # if the thread dies in between
        try:
            outcomes = self._runs.finish(begun)
        finally:
            done = time.perf_counter()
            for part, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Reading):
                    waited = max(done - part.since - outcome.inference_seconds, 0.0)
                    part.reading.set_result(replace(outcome, queue_seconds=waited))
                else:
                    part.reading.set_exception(outcome)
        self._runs.check_device(batch[0].artifact)

    def _abandon(self) -> None:
        """Answer whatever is left when the thread ends."""
        for batch, _ in self._under_way:
            _stop(batch)
        with self._work:
            left = [part for queue in self._waiting.values() for part in queue]
            self._waiting.clear()
        _stop([part for part in left if part.reading.set_running_or_notify_cancel()])


def _too_late(part: _Part) -> DeadlinePassed:
    waited = time.perf_counter() - part.since
    return DeadlinePassed(
        f"The part's deadline passed, {waited:.1f} seconds after it had been queued, and it was not judged. Send it "
        "again, parts less often, or give it more time."
    )


def _stop(parts: Iterable[_Part]) -> None:
    for part in parts:
        part.reading.set_exception(_stopped())


def _stopped() -> EngineStopped:
    return EngineStopped("The service stopped before this part was judged. Send it again when it is ready.")
