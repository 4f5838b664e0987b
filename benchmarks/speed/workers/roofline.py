"""What the machine itself gives: the rate of matrix products in each precision, and of moving memory."""

from typing import Any

import torch
from loop import serve, turn
from stopwatch import stopwatch

_EDGE = {"cpu": 2048, "cuda": 8192}  # of the square matrices
_BYTES = {"cpu": 2**28, "cuda": 2**30}  # of the tensor that is copied: larger than any cache
_PRECISIONS = ("float32", "bfloat16", "float16")
_ENOUGH_MS = 1500.0
_PATIENCE_MS = 5000.0  # for a product; what is only emulated takes minutes, and is measured on smaller matrices


def measure(*, device: str, passes: int = 9) -> dict[str, Any]:
    """The best of some passes each: 10^12 operations a second by precision, and 10^9 bytes a second, read and written.

    float32 is float32 proper on CUDA too, without TensorFloat-32, as torch multiplies by default.
    """
    place = torch.device(device)
    with torch.inference_mode():
        teraflops = {name: _product(place, getattr(torch, name), passes) for name in _PRECISIONS}
        source = torch.ones(_BYTES[place.type] // 4, device=place)
        target = torch.empty_like(source)
        best = min(turn(lambda: target.copy_(source), passes=passes, enough_ms=_ENOUGH_MS, stopwatch=stopwatch(place)))
    return {"teraflops": teraflops, "gigabytes": 2 * source.nbytes / best / 1e6}


def _product(place: torch.device, dtype: torch.dtype, passes: int) -> float | None:
    """None where this torch cannot multiply in that precision."""
    edge = _EDGE[place.type]
    try:
        left, right = (torch.randn(edge, edge, device=place).to(dtype) for _ in range(2))
        small = [matrix[: edge // 8, : edge // 8].contiguous() for matrix in (left, right)]
        probed = min(turn(lambda: torch.mm(*small), passes=2, enough_ms=_ENOUGH_MS, stopwatch=stopwatch(place)))
        if 8**3 * probed > _PATIENCE_MS:
            return 2 * (edge // 8) ** 3 / probed / 1e9
        out = torch.empty_like(left)
        best = min(
            turn(
                lambda: torch.mm(left, right, out=out),
                passes=passes,
                enough_ms=_ENOUGH_MS,
                stopwatch=stopwatch(place),
            )
        )
        return 2 * edge**3 / best / 1e9
    except RuntimeError:
        return None


if __name__ == "__main__":
    serve({"roofline": measure})
