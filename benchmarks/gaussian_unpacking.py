"""Time the dense Gaussian: whitening unpacked anew in blocks, against an unpacked copy that is kept.

python benchmarks/gaussian_unpacking.py [--threads 4] [--positions 3136] [--channels 152]
"""

import argparse
import time
from collections.abc import Callable

import torch

from models.gaussian import mahalanobis, unpack_lower


def milliseconds(run: Callable[[], object], repeats: int = 10) -> float:
    """The fastest of `repeats` runs after a first one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


@torch.inference_mode()
def main() -> None:
    """Print one line per batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--positions", type=int, default=3136)
    parser.add_argument("--channels", type=int, default=152)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    p, d = arguments.positions, arguments.channels
    mean, packed = torch.randn(p, d), torch.randn(p, d * (d + 1) // 2)
    kept = unpack_lower(packed, d)
    for b in (1, 8):
        y = torch.randn(b, p, d)
        anew = milliseconds(lambda y=y: mahalanobis(y, mean, packed))  # type: ignore[misc]
        copy = milliseconds(
            lambda y=y: torch.bmm(kept, (y - mean).permute(1, 2, 0)).square().sum(1).sqrt()  # type: ignore[misc]
        )
        print(f"b={b}: unpacked in blocks {anew:.1f} ms, kept unpacked {copy:.1f} ms")


if __name__ == "__main__":
    main()
