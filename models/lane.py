"""Where the work of a device is put in order: what is copied there, what is computed, what is recorded and repeated.

`CudaLane` is one for each GPU and all that runs on it: two streams, one for pictures on their way to the GPU and one
for everything else, and one pool of memory that all recorded runs take turns with. `InOrder` does the same steps one
after the other: on a CPU, and so that they can be tested on one.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol
from weakref import WeakSet

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Work = Callable[[], None]

# While a run is recorded nothing may give memory back to the device, in no thread: torch's allocator asserts it.
_recording = threading.Lock()
_lanes: dict[torch.device, "CudaLane"] = {}
_lanes_lock = threading.Lock()


class Lane(Protocol):
    """The order of work on one device."""

    device: torch.device

    def settle(self) -> None:
        """Wait for what this thread has put onto the device, so that work here may use it."""
        ...

    def place(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Zeros on the device."""
        ...

    def stage(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory of the CPU's that the device copies from and to by itself."""
        ...

    def sending(self) -> AbstractContextManager[None]:
        """In this block copies to the device are put in order, beside what is computed there."""
        ...

    def computing(self) -> AbstractContextManager[None]:
        """In this block work is put in order: behind what was sent, and behind the work of earlier blocks."""
        ...

    def mark(self) -> Work:
        """Inside of `computing`: what waits until everything up to here has been done."""
        ...

    def record(self, work: Work) -> Work | None:
        """Inside of `computing`: what repeats work that has been done at least once; None where that cannot be.

        The work reads and writes tensors from `place`, and keeps no others. Raises torch.OutOfMemoryError.
        """
        ...


class InOrder:
    """Everything at once, one thing after the other."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def settle(self) -> None:
        """Nothing is under way."""

    def place(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Zeros, filled in at once."""
        return torch.zeros(*shape, dtype=dtype, device=self.device)

    stage = place

    def sending(self) -> AbstractContextManager[None]:
        """Nothing needs to be put in order."""
        return nullcontext()

    computing = sending

    def mark(self) -> Work:
        """It has been done."""
        return _nothing

    def record(self, work: Work) -> Work | None:
        """Doing it again is repeating it."""
        return work


class CudaLane:
    """The streams of one GPU. Get it from `lane_of`: two of them for one GPU would compute beside each other.

    Recorded runs share their memory, which is safe because one stream repeats them one by one, and each leaves its
    results in tensors that are not of that memory. So they take as much as the largest needs, or at most twice that
    where smaller batches were recorded first, however many artifacts are loaded.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._sending = torch.cuda.Stream(device)
        self._computing = torch.cuda.Stream(device)
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
        self._records = True
        self._lock = threading.RLock()  # a batch's copies and its run are put in order together

    def settle(self) -> None:
        """Loading an artifact converts its weights on the thread's own stream, and does not wait for that."""
        torch.cuda.current_stream(self.device).synchronize()

    def place(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Zeros, once they are there."""
        with self._lock, torch.cuda.stream(self._computing):
            placed = torch.zeros(*shape, dtype=dtype, device=self.device)
            self._computing.synchronize()  # the other stream may write to it
            return placed

    def stage(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Pinned, so that a copy needs no buffer of the driver's, and no thread that waits."""
        return torch.empty(*shape, dtype=dtype, pin_memory=True)

    def sending(self) -> AbstractContextManager[None]:
        """On a stream of its own."""
        return torch.cuda.stream(self._sending)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """On the one stream for it."""
        with self._lock, torch.cuda.stream(self._computing):
            self._computing.wait_stream(self._sending)
            yield

    def mark(self) -> Work:
        """An event, waited for without keeping a core busy: decoding needs it."""
        event = torch.cuda.Event(blocking=True)
        event.record(self._computing)
        return event.synchronize

    def record(self, work: Work) -> Work | None:
        """A CUDA graph. What cannot be one is logged, once for the device, and never tried again."""
        if not self._records:
            return None
        try:
            return self._graph(work).replay
        except Exception as error:
            if _short_of_memory(error):
                raise torch.OutOfMemoryError(f"There is no memory to record a run on {self.device}.") from error
            # A recording that was cut short leaves torch's allocator in a state in which no other can begin.
            self._records = False
            logger.warning("no CUDA graphs on %s, which is slower: recording one failed", self.device, exc_info=True)
            return None

    def _graph(self, work: Work) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with _recording:
            # Held on to meanwhile: a pool ends with the last graph that uses it, and cannot be used again.
            other = next(iter(self._graphs), None)
            pool = None if other is None else other.pool()
            # "thread_local": the service loads artifacts in another thread, and its allocations are not part of it.
            with torch.cuda.graph(graph, pool=pool, stream=self._computing, capture_error_mode="thread_local"):
                work()
            self._graphs.add(graph)
        return graph


def lane_of(device: torch.device) -> CudaLane:
    """The lane of a CUDA device, one for the whole process. In any thread."""
    if device == torch.device(device.type):  # without a number
        device = torch.device(device.type, torch.cuda.current_device())
    with _lanes_lock:
        if device not in _lanes:
            _lanes[device] = CudaLane(device)
        return _lanes[device]


def give_back_memory(device: torch.device) -> None:
    """Give what torch keeps of a GPU's memory, and does not use, back to the GPU; on other devices nothing."""
    if device.type != "cuda":
        return
    with _recording:
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:  # torch's allocator after a recording that failed
            logger.warning("%s keeps its memory: %s", device, str(error).partition("\n")[0])


def _short_of_memory(error: BaseException) -> bool:
    """Whether that is why recording failed: ending it may have failed over it, with an error of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.OutOfMemoryError) or "out of memory" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _nothing() -> None:
    pass
