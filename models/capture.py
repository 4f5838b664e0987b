"""One attempt at recording a CUDA graph, and in what state it leaves the device."""

import gc
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from models.lane import Work

# While a run is recorded nothing may give memory back to the device, in no thread: torch's allocator asserts it.
recording = threading.Lock()


class WorkFailedError(Exception):
    """The work itself failed, and the recording was ended in good order after it: others can be made. See its cause."""


def capture(recorder: AbstractContextManager[object], work: Work) -> None:
    """Do the work inside of `recorder`. Raises WorkFailedError, or whatever else beginning or ending it raised.

    If the end of a recording fails too, its error replaces the work's. So the work's own coming out tells that the
    recording has ended. After any other, torch's allocator may be left in a state in which none can begin.
    """
    own: Exception | None = None
    try:
        with recording, _without_collection(), recorder:
            try:
                work()
            except Exception as error:
                own = error
                raise
    except Exception as error:
        if error is own:
            raise WorkFailedError(str(error)) from error
        raise
    finally:
        own = None  # whose traceback would hold on to this frame, and what was half computed


@contextmanager
def _without_collection() -> Iterator[None]:
    """What a collection would free could be another graph, or an event: neither may go during a recording."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
