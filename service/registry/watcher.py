"""A thread that looks again and again, until it is told to stop."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


@contextmanager
def watching(look: Callable[[], None], *, seconds: float) -> Iterator[None]:
    """Call `look` every so many seconds in a thread, for as long as the block lasts. What it raises is logged."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            try:
                look()
            except Exception:
                logger.exception("looking through the artifact folder failed; it will be tried again")

    thread = threading.Thread(target=run, name="artifact folder", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
