"""Milliseconds on the device that computes: by the clock on a CPU, by events on CUDA. Needs torch."""

from collections.abc import Callable

import torch
from loop import Run, Stopwatch, wall_clock


def stopwatch(device: torch.device) -> Stopwatch:
    """What times a run on `device`, from the moment it is idle until it is idle again."""
    return _events if device.type == "cuda" else wall_clock


def _events(run: Run) -> float:
    torch.cuda.synchronize()
    begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begun.record()
    run()
    ended.record()
    torch.cuda.synchronize()
    return begun.elapsed_time(ended)


def captured(run: Callable[[], object], device: torch.device) -> tuple[Run, str]:
    """The same run as one CUDA graph, and a word on it; the run itself where there is no CUDA or no capture."""
    if device.type != "cuda":
        return run, ""
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # what libraries allocate and choose at first must not be in the graph
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
    except RuntimeError as error:
        return run, f"eager, no graph: {str(error).partition(chr(10))[0]}"
    return graph.replay, "CUDA graph"
