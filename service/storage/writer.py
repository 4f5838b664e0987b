"""The one thread that adds inspections: whatever waits is one transaction, so a batch costs one sync of the disk.

An order (the parts of one request) is stored whole or not at all, and its future is answered after the commit. If a
transaction fails for what one of its orders holds, each is tried alone.
"""

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from service.errors import StoreUnavailable
from service.storage.inspections import Addition, Inspections
from service.worker import Worker

logger = logging.getLogger(__name__)

_MOST_ORDERS = 256  # in one transaction


@dataclass(frozen=True)
class _Order:
    additions: Sequence[Addition]
    done: "Future[None]" = field(default_factory=Future)


class Writer:
    """Commits what it is given, in the order in which it came."""

    def __init__(self, inspections: Inspections) -> None:
        self._inspections = inspections
        self._waiting: deque[_Order] = deque()
        self._storing: list[_Order] = []
        self._worker = Worker("writer", self._run, abandon=self._abandon)

    def start(self) -> None:
        """Begin to take orders."""
        self._worker.start()

    def stop(self, *, timeout: float | None = None) -> None:
        """Take no more orders, commit those that wait, and end; give up after `timeout` seconds."""
        self._worker.stop(timeout=timeout)

    @property
    def alive(self) -> bool:
        """Whether orders are being taken."""
        return self._worker.alive

    @property
    def died(self) -> bool:
        """Whether it has ended without having been asked to; nothing brings it back."""
        return self._worker.died

    def commit(self, additions: Sequence[Addition]) -> "Future[None]":
        """Commit inspections, all or none. The future raises StoreUnavailable or IntegrityError.

        An order whose future is cancelled before its transaction has begun is not stored.
        """
        order = _Order(additions)
        with self._worker.changed:
            if not self._worker.alive:
                raise _stopped()
            self._waiting.append(order)
            self._worker.changed.notify()
        return order.done

    def _run(self) -> None:
        while self._take():
            if self._storing:
                self._store(self._storing)

    def _take(self) -> bool:
        """Whether to go on, with what waits in `_storing`; not if it was stopped and nothing waits."""
        with self._worker.changed:
            while not self._waiting:
                if not self._worker.open:
                    return False
                self._worker.changed.wait()
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_ORDERS))]
        self._storing = [order for order in taken if order.done.set_running_or_notify_cancel()]
        return True

    def _store(self, orders: Sequence[_Order]) -> None:
        try:
            self._inspections.add([addition for order in orders for addition in order.additions])
        except StoreUnavailable as error:
            for order in orders:
                order.done.set_exception(StoreUnavailable(str(error)))
        except Exception as error:
            if len(orders) == 1:
                orders[0].done.set_exception(error)
                return
            logger.warning("a transaction of %d requests failed (%s); each is tried alone", len(orders), error)
            for order in orders:
                self._store([order])
        else:
            for order in orders:
                order.done.set_result(None)

    def _abandon(self) -> None:
        for order in [*self._storing, *self._waiting]:
            if not order.done.done():
                order.done.set_exception(_stopped())
        self._waiting.clear()


def _stopped() -> StoreUnavailable:
    return StoreUnavailable("The service stopped before this verdict was stored. Send the part again.")
