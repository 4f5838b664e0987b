"""Many small eigendecompositions: LAPACK's own threads against one matrix a thread, as `training.parallel` does.

python benchmarks/small_decompositions.py [--threads 4] [--size 152] [--matrices 56] [--busy 4]

`--busy` other processes keep the cores busy meanwhile, as on a shared machine. One line each, and the ratio.
"""

import argparse
import multiprocessing
import time

import torch

from training.parallel import in_parallel


def busy() -> None:
    while True:
        pass


def seconds(matrices: torch.Tensor, *, pooled: bool) -> float:
    """One pass over all matrices, after one that is not counted."""
    for _ in range(2):
        started = time.perf_counter()
        if pooled:
            list(in_parallel(torch.linalg.eigh, matrices.split(7), device=torch.device("cpu")))
        else:
            torch.linalg.eigh(matrices)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--size", type=int, default=152)
    parser.add_argument("--matrices", type=int, default=56)
    parser.add_argument("--busy", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    x = torch.randn(given.matrices, 2 * given.size, given.size)
    matrices = x.transpose(1, 2) @ x
    others = [multiprocessing.Process(target=busy, daemon=True) for _ in range(given.busy)]
    for other in others:
        other.start()
    own, pooled = (seconds(matrices, pooled=pooled) for pooled in (False, True))
    for other in others:
        other.terminate()
    times = f"LAPACK's threads {own:.2f} s, a matrix a thread {pooled:.2f} s, {own / pooled:.1f} x"
    print(f"{given.busy} other processes: {times}")


if __name__ == "__main__":
    main()
