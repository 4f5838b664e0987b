"""The one thread that adds inspections: whatever waits is one transaction, so a batch costs one sync of the disk.

An order (the parts of one request) is stored whole or not at all, and its future is answered after the commit. If a
transaction fails for what one of its orders holds, each is tried alone.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from service.errors import ServiceError, StoreUnavailable
from service.storage.inspections import Addition, Inspections

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
        self._work = threading.Condition()
        self._open = False
        self._died = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Begin to take orders."""
        self._open = True
        self._thread.start()

    def stop(self, *, timeout: float | None = None) -> None:
        """Take no more orders, commit those that wait, and end the thread; give up after `timeout` seconds."""
        with self._work:
            self._open = False
            self._work.notify_all()
        self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether orders are being taken."""
        return self._open and self._thread.is_alive()

    @property
    def died(self) -> bool:
        """Whether the thread has ended without having been asked to; nothing brings it back."""
        return self._died

    def commit(self, additions: Sequence[Addition]) -> "Future[None]":
        """Commit inspections, all or none. The future raises StoreUnavailable or IntegrityError."""
        order = _Order(additions)
        with self._work:
            if not self.alive:
                raise _stopped()
            self._waiting.append(order)
            self._work.notify()
        return order.done

    def _run(self) -> None:
        orders: list[_Order] = []
        try:
            while orders := self._next():
                self._store(orders)
        except BaseException:
            self._died = True
            logger.critical("the writer thread has died: nothing is stored until a restart", exc_info=True)
        finally:
            with self._work:
                self._open = False
                left = [*orders, *self._waiting]
                self._waiting.clear()
            for order in left:
                if not order.done.done():
                    order.done.set_exception(_stopped())

    def _next(self) -> list[_Order]:
        """What waits; empty when stopped and nothing waits."""
        with self._work:
            while not self._waiting:
                if not self._open:
                    return []
                self._work.wait()
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_ORDERS))]

    def _store(self, orders: Sequence[_Order]) -> None:
        try:
            self._inspections.add([addition for order in orders for addition in order.additions])
        except (ServiceError, SQLAlchemyError) as error:
            if len(orders) > 1 and not isinstance(error, StoreUnavailable):
                for order in orders:
                    self._store([order])
                return
            for order in orders:
                order.done.set_exception(error)
        else:
            for order in orders:
                order.done.set_result(None)


def _stopped() -> StoreUnavailable:
    return StoreUnavailable("The service stopped before this verdict was stored. Send the part again.")
