"""Batches of examples, prepared ahead by threads so that the device does not wait for one.

They come in the order that (seed, epoch) decides, whatever thread made them. What lies ahead is bounded in bytes and
reaches into the next epoch, so that only the first begins with a wait. Threads are enough: pictures are made by
OpenCV, NumPy and torch, which let go of Python's lock.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from models.cores import usable_cores
from training.threads import Threads

Batch = tuple[Tensor, ...]

_AHEAD = 2  # batches that lie ready, beside those that are being made
_BYTES = 2**30  # that all of these may take, if two batches do not take more
_LEAST = 2  # batches, however large: one that lies ready, one that is being made


class Source(Protocol):
    """What examples are made from. `size` is the number of examples in an epoch."""

    size: int

    def prepare(self, indices: list[int], *, epoch: int) -> tuple[Tensor, ...]:
        """The examples of a batch, on the CPU; a pure function of its arguments."""
        ...


class Share(NamedTuple):
    """Which examples of every batch are this process's: those of number `rank` among `world`."""

    rank: int = 0
    world: int = 1

    def of(self, batch: list[int]) -> list[int]:
        """Its indices; what cannot be shared evenly is nobody's."""
        return batch[self.rank : len(batch) - len(batch) % self.world : self.world]


WHOLE = Share()


class Feed:
    """The batches of some epochs, one epoch after the other. A context: its threads end with it.

    `pinned`: batches lie where CUDA fetches them from by itself.
    """

    def __init__(
        self, source: Source, *, batch_size: int, seed: int, epochs: range, share: Share = WHOLE, pinned: bool = False
    ) -> None:
        self._source = source
        self._batch_size = batch_size
        self._seed = seed
        self._share = share
        self._pinned = pinned
        self._todo = ((epoch, batch) for epoch in epochs for batch in self._batches(epoch))
        self._waiting: deque[tuple[int, Future[Batch]]] = deque()
        self._workers = _workers(share, pinned=pinned)
        self._depth: int | None = None  # batches that may lie ahead; the first one tells
        self._pool = Threads(self._workers, name="prepare")

    def __enter__(self) -> "Feed":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, traceback)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`; to be used up before the next epoch's are asked for."""
        self._look_ahead()
        while self._waiting and self._waiting[0][0] == number:
            _, made = self._waiting.popleft()
            if self._depth is None:
                self._depth = self._deepest(made.result())
            self._look_ahead()
            yield made.result()

    def _look_ahead(self) -> None:
        while len(self._waiting) < (self._depth or _LEAST) and (task := next(self._todo, None)) is not None:
            epoch, indices = task
            self._waiting.append((epoch, self._pool.submit(self._prepare, indices, epoch)))

    def _deepest(self, batch: Batch) -> int:
        """How many batches like this one, than which none is larger, may lie ahead."""
        size = sum(part.nbytes for part in batch)
        return max(_LEAST, min(self._workers + _AHEAD, _BYTES // max(1, size)))

    def _batches(self, epoch: int) -> Iterator[list[int]]:
        """This process's share of each batch of an epoch."""
        order = np.random.default_rng([self._seed, epoch]).permutation(self._source.size).tolist()
        shares = (self._share.of(order[i : i + self._batch_size]) for i in range(0, len(order), self._batch_size))
        return (share for share in shares if share)

    def _prepare(self, indices: list[int], epoch: int) -> Batch:
        batch = self._source.prepare(indices, epoch=epoch)
        return tuple(part.pin_memory() for part in batch) if self._pinned else batch


def _workers(share: Share, *, pinned: bool) -> int:
    """A thread for each of this process's cores; for every other one where torch computes on them as well.

    Nor more than torch has: that is what the environment's OMP_NUM_THREADS says, and Lightning in a spawned process.
    """
    cores = min(torch.get_num_threads(), usable_cores() // share.world)
    return max(1, cores if pinned else cores // 2)
