"""A thread that does what waits for it, until it is told to stop: then it finishes that, and takes no more.

Engine and writer are one each. A thread that ends for any other reason has died, and nothing brings it back.
"""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Worker:
    """`work` is called in the thread, and returns when `open` is false and nothing waits; `abandon` always after it."""

    def __init__(self, name: str, work: Callable[[], None], *, abandon: Callable[[], None]) -> None:
        self.changed = threading.Condition()  # guards the queue, and tells the thread of what was added to it
        self.open = False
        self.died = False
        self._work = work
        self._abandon = abandon
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self.open = True
        self._thread.start()

    def stop(self, *, timeout: float | None = None) -> None:
        """Take no more, finish what waits, and end the thread; give up after `timeout` seconds."""
        with self.changed:
            self.open = False
            self.changed.notify_all()
        self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether something new may be added."""
        return self.open and self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException:
            self.died = True
            logger.critical(
                "the %s thread has died: nothing is judged until a restart", self._thread.name, exc_info=True
            )
        finally:
            with self.changed:
                self.open = False
            self._abandon()
