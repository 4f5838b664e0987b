"""Many small decompositions at once: a thread for each core, and no threads within one.

LAPACK's own threads do not help with matrices of a few hundred rows, and where the cores are shared they wait for
each other so long that a fit takes a hundred times as long (benchmarks/small_decompositions.py). Results come in
order and do not depend on the number of threads.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

import torch

from training.threads import Threads

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item], *, device: torch.device) -> Iterator[Result]:
    """`work` of each item, in order and without gradients. On CUDA one after another: there the device is parallel."""

    def alone(item: Item) -> Result:
        with torch.inference_mode():
            return work(item)

    if device.type != "cpu":
        yield from map(alone, items)
        return
    threads = torch.get_num_threads()
    waiting: deque[Future[Result]] = deque()
    with Threads(threads, name="in-parallel") as pool:
        torch.set_num_threads(1)  # for what is done with results while others are made
        for item in items:  # no more at a time than there are threads: what comes of one may be large
            waiting.append(pool.submit(alone, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
