"""Work on many files, in threads and in order, no further ahead than memory has room for.

Decoding, checksums and resizing let other threads run, so that threads are enough. As many as torch uses: they are
the cores of this run.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import TypeVar

import torch

from training.threads import Threads

Item = TypeVar("Item")
Result = TypeVar("Result")

_PER_THREAD = 2  # begun or done for each thread, so that none waits for whoever takes the results


def read_ahead(work: Callable[[Item], Result], items: Iterable[Item], *, batch: int = 1) -> Generator[Result]:
    """`work` of each item, in order; at most `batch` results, and two a thread, wait to be taken.

    What `work` raises is raised where its result would have been, and nothing after it is begun.
    """
    threads = torch.get_num_threads()
    waiting: deque[Future[Result]] = deque()
    with Threads(threads, name="read-ahead") as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= batch + _PER_THREAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
