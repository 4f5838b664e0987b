"""The order of work on a GPU: two streams, one for pictures on their way there and one for everything else.

One lane for each GPU and all that runs on it; recorded runs are CUDA graphs, and take turns with one pool of memory.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from weakref import WeakSet, ref

import torch
from torch import Tensor

from models.lane import Recording, Work

logger = logging.getLogger(__name__)

_MOST_WITHOUT_USE = 48  # graphs of artifacts that have gone: eight artifacts' of all sizes

# While a run is recorded nothing may give memory back to the device, in no thread: torch's allocator asserts it.
_recording = threading.Lock()
_lanes: dict[torch.device, "CudaLane"] = {}
_lanes_lock = threading.Lock()


class Replay:
    """A CUDA graph, for as long as its lane keeps it."""

    def __init__(self, graph: torch.cuda.CUDAGraph) -> None:
        self._graph = ref(graph)

    @property
    def alive(self) -> bool:
        """As `Recording` says."""
        return self._graph() is not None

    def __call__(self) -> None:
        """As `Recording` says; RuntimeError where it is not alive."""
        graph = self._graph()
        if graph is None:
            raise RuntimeError("this CUDA graph was given up: record it again")
        graph.replay()


class CudaLane:
    """The streams of one GPU. Get it from `lane_of`: two of them for one GPU would compute beside each other.

    Recorded runs share their memory, which is safe because one stream repeats them one by one, and each leaves its
    results in tensors that are not of that memory. So they take as much as the largest needs, or at most twice that
    where smaller batches were recorded first, however many artifacts are loaded. They also share cuBLAS's work space,
    which torch frees with any one of them (since about 2.12: pytorch/pytorch#193402). So none goes before all do: when
    enough belong to artifacts that have gone, or memory is short, all are given up, and recorded again when needed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._sending = torch.cuda.Stream(device)
        self._computing = torch.cuda.Stream(device)
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._replays: WeakSet[Replay] = WeakSet()
        self._pool: Any = None  # torch's name for the memory of all graphs
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

    def record(self, work: Work) -> Recording | None:
        """A CUDA graph. What cannot be one is logged, once for the device, and never tried again."""
        if not self._records:
            return None
        if len(self._graphs) - len(self._replays) >= _MOST_WITHOUT_USE:
            self._give_up()
        try:
            return self._replay(work)
        except Exception as error:
            if not _short_of_memory(error):
                # A recording that was cut short leaves torch's allocator in a state in which no other can begin.
                self._records = False
                logger.warning("no CUDA graphs on %s, which is slower: recording failed", self.device, exc_info=True)
                return None
        # Outside of the except block, whose traceback holds on to the graph.
        self._give_up()
        raise torch.OutOfMemoryError(f"There is not enough memory on {self.device} to record a run.")

    def _replay(self, work: Work) -> Replay:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        self._graphs.append(graph)  # also if it fails: it would take the others' work space with it
        # "thread_local": the service loads artifacts in another thread, and its allocations are not part of it.
        recorder = torch.cuda.graph(graph, pool=self._pool, stream=self._computing, capture_error_mode="thread_local")
        with _recording, recorder:
            work()
        replay = Replay(graph)
        self._replays.add(replay)
        return replay

    def _give_up(self) -> None:
        """End all graphs, and with the last of them their memory, whose name cannot be used again."""
        self._computing.synchronize()
        self._graphs.clear()
        self._replays.clear()
        self._pool = None


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
