"""What is known of a database that hangs: once somebody has waited for it in vain, the others need not.

One at a time goes on asking, and finds out for all; whoever comes meanwhile is refused at once. Without that every
thread would wait out its own time, and every request behind them the sum. A database that refuses costs nobody any
time, and is none of this.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree


class Silence(Exception):
    """A driver's error after a wait in vain, as opposed to a no, is one of these too."""


class Hanging(Exception):
    """The database was found to hang, and somebody else is just finding out whether it still does."""


class Outage:
    """Safe in any thread."""

    def __init__(self) -> None:
        self._hangs = False
        self._asking = threading.Lock()  # held by the one who finds out

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Use the database in this block, and see how it does. Raises Hanging instead of entering it."""
        asking = self._hangs
        if asking and not self._asking.acquire(blocking=False):
            raise Hanging
        hung: bool | None = False
        try:
            yield
        except NoConnectionFree:
            hung = None  # that is for others to say
            raise
        except DBAPIError as error:
            hung = isinstance(error.orig, Silence)
            raise
        finally:
            if hung:
                self._hangs = True
            elif asking and hung is not None:
                self._hangs = False
            if asking:
                self._asking.release()
