"""What the machine itself gives: the rate of matrix products in each precision, and of moving memory."""

from functools import partial
from typing import Any

import torch
from loop import Run, serve, turn
from stopwatch import stopwatch

_EDGE = {"cpu": 2048, "cuda": 8192}  # of the square matrices
_BYTES = {"cpu": 2**28, "cuda": 2**30}  # of the tensor that is copied: larger than any cache
_PRECISIONS = ("float32", "bfloat16", "float16")
_ENOUGH_MS = 1500.0
_PATIENCE_MS = 5000.0  # for a product: what is only emulated is measured on smaller matrices


def measure(*, device: str, passes: int = 9) -> dict[str, Any]:
    """The best of some passes each: 10^12 operations a second by precision, and 10^9 bytes a second, read and written.

    float32 is float32 proper on CUDA too, without TensorFloat-32, as torch multiplies by default.
    """
    place = torch.device(device)
    with torch.inference_mode():
        teraflops = {name: _product(place, getattr(torch, name), passes) for name in _PRECISIONS}
        source = torch.ones(_BYTES[place.type] // 4, device=place)
        target = torch.empty_like(source)
        best = _best(lambda: target.copy_(source), place, passes)
    return {"teraflops": teraflops, "gigabytes": 2 * source.nbytes / best / 1e6}


def _product(place: torch.device, dtype: torch.dtype, passes: int) -> float | None:
    """Of matrices as large as can be waited for; None where this torch cannot multiply in that precision."""
    rate = None
    try:
        for edge in (_EDGE[place.type] >> halvings for halvings in (3, 2, 1, 0)):
            left, right = (torch.randn(edge, edge, device=place).to(dtype) for _ in range(2))
            out = torch.empty_like(left)
            best = _best(partial(torch.mm, left, right, out=out), place, passes)
            rate = 2 * edge**3 / best / 1e9
            if 8 * best > _PATIENCE_MS:
                break
    except RuntimeError:
        return rate
    return rate


def _best(run: Run, place: torch.device, passes: int) -> float:
    return min(turn(run, passes=passes, enough_ms=_ENOUGH_MS, stopwatch=stopwatch(place)))


if __name__ == "__main__":
    serve({"roofline": measure})
