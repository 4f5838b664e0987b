"""What a method costs on this machine: time for a picture, and memory."""

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch

from models.artifact import Artifact
from training.arrays import Rgb

TIMED: Final = 20  # pictures


def median_milliseconds(work: Callable[[Rgb], object], pictures: Sequence[Rgb]) -> float:
    """Median time of `work` on one picture after another; the first is done twice, and its first time dropped."""
    spent = []
    for picture in (pictures[0], *pictures):
        started = time.perf_counter()
        work(picture)
        spent.append(1000 * (time.perf_counter() - started))
    return statistics.median(spent[1:])


def milliseconds(artifact: Artifact, pictures: Sequence[Rgb]) -> float:
    """Median time from a decoded picture to its score, one picture at a time."""

    def inspect(picture: Rgb) -> float:
        return float(artifact.runner([artifact.detector.preprocess.resize(picture)]).scores[0])

    return median_milliseconds(inspect, pictures)


def peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    try:
        # Linux's getrusage also counts what the parent had when it forked; this does not.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_peak_bytes() -> int:
    """The most that torch held on the GPU; 0 without one."""
    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0
