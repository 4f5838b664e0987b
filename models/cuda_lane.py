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

from models.capture import WorkFailedError, capture, recording
from models.lane import Recording, Work
from models.memory_shortage import short_of_memory

logger = logging.getLogger(__name__)

# What the driver keeps for an executable graph is in none of torch's figures, and was never measured: hence a number.
_MOST = 192  # graphs in all: 32 artifacts' of all sizes
_MOST_WITHOUT_USE = 48  # graphs of artifacts that have gone: eight artifacts' of all sizes

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
    there are too many, enough belong to artifacts that have gone, or memory is short, all are given up, and recorded
    again when needed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._sending = torch.cuda.Stream(device)
        self._computing = torch.cuda.Stream(device)
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._replays: WeakSet[Replay] = WeakSet()
        self._pool: Any = None  # torch's name for the memory of all graphs
        self._records = True
        self._wanted = threading.Event()
        self.under_way = 0
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
            self._yield_memory()
            self._computing.wait_stream(self._sending)
            yield

    def mark(self) -> Work:
        """An event, waited for without keeping a core busy: decoding needs it."""
        event = torch.cuda.Event(blocking=True)
        event.record(self._computing)
        return event.synchronize

    def record(self, work: Work) -> Recording | None:
        """A CUDA graph. What cannot be one is logged, and never tried again."""
        if not self._records:
            return None
        if len(self._graphs) >= _MOST or len(self._graphs) - len(self._replays) >= _MOST_WITHOUT_USE:
            self._give_up()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        self._graphs.append(graph)  # also if it fails: it would take the others' work space with it
        # "thread_local": the service loads artifacts in another thread, and its allocations are not part of it.
        recorder = torch.cuda.graph(graph, pool=self._pool, stream=self._computing, capture_error_mode="thread_local")
        try:
            capture(recorder, work)
        except Exception as error:
            short, again = self._failed(error)
            if not short:
                return None
        else:
            replay = Replay(graph)
            self._replays.add(replay)
            return replay
        del graph, recorder  # outside of the except block, whose traceback holds on to them
        if again:
            self._give_up()
        raise torch.OutOfMemoryError(f"There is not enough memory on {self.device} to record a run.")

    def _failed(self, error: Exception) -> tuple[bool, bool]:
        """Whether a recording failed for want of memory, and whether the device can record again after it."""
        ended = isinstance(error, WorkFailedError)
        short = short_of_memory(error)
        if ended and not short:
            logger.warning("a run on %s cannot be a CUDA graph, which is slower", self.device, exc_info=error)
        elif not isinstance(error.__cause__ if ended else error, torch.OutOfMemoryError):
            ended = False
        if not ended:
            self._records = False
            logger.warning("no CUDA graphs on %s, which is slower: recording failed", self.device, exc_info=error)
        return short, ended

    def _give_up(self) -> None:
        """End all graphs, and with the last of them their memory, whose name cannot be used again.

        Not where a recording could not be ended: its graph must stay, and no other could be recorded anew.
        """
        if not self._records:
            return
        self._computing.synchronize()
        self._graphs.clear()
        self._replays.clear()
        self._pool = None

    def want_memory(self) -> None:
        """Ask for the graphs' memory, from any thread: they are given up when the next work is put in order."""
        self._wanted.set()

    def _yield_memory(self) -> None:
        if not self._wanted.is_set():
            return
        self._wanted.clear()
        if self._graphs and self._records:
            self._give_up()
            _empty_cache(self.device)


def lane_of(device: torch.device) -> CudaLane:
    """The lane of a CUDA device, one for the whole process. In any thread."""
    if device == torch.device(device.type):  # without a number
        device = torch.device(device.type, torch.cuda.current_device())
    with _lanes_lock:
        if device not in _lanes:
            _lanes[device] = CudaLane(device)
        return _lanes[device]


def give_back_memory(device: torch.device) -> None:
    """Give what torch keeps of a GPU's memory, and does not use, back to the GPU; on other devices nothing.

    For when memory is short: recorded runs go too, as soon as the thread that judges has its next batch.
    """
    if device.type != "cuda":
        return
    lane_of(device).want_memory()
    _empty_cache(device)


def _empty_cache(device: torch.device) -> None:
    with recording:
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:  # torch's allocator after a recording that failed
            logger.warning("%s keeps its memory: %s", device, str(error).partition("\n")[0])
