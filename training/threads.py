"""Threads that work beside each other, each on one core: torch starts no threads of its own within them.

Without that each of T threads would start T of OpenMP's, and they would wait for one another.
"""

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import torch


class Threads(ThreadPoolExecutor):
    """At most `count` threads, named `name`. A context: what was not begun when it ends is not begun any more."""

    def __init__(self, count: int, *, name: str) -> None:
        # Asked for here, and not only at the end: a thread that has never asked takes the number that was set last.
        self._before = torch.get_num_threads()
        super().__init__(count, thread_name_prefix=name, initializer=torch.set_num_threads, initargs=(1,))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown(cancel_futures=True)
        torch.set_num_threads(self._before)  # the workers' 1 would be what torch gives to every thread made later
