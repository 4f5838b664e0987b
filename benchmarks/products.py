"""Matrix products of a fit in float32: torch's default library, and oneDNN as `models.products` calls it.

python benchmarks/products.py [--threads 4] [--turns 9]

10^9 multiply-adds a second of the shapes that a fit of wide_resnet50_2's compact Gaussian multiplies; medians of turns,
with what half of them lie between.
"""

import argparse
import time
from collections.abc import Callable

import torch
from speed.spread import ratio, spread
from torch import Tensor

from models.products import gram, product

Multiply = Callable[[], Tensor]


def default_product(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.T


def default_gram(z: Tensor) -> Tensor:
    return z @ z.transpose(1, 2)


def rates(ways: dict[str, Multiply], multiply_adds: int, *, turns: int) -> dict[str, list[float]]:
    """10^9 multiply-adds a second of each way's turns, after one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, multiply in ways.items():
            begun = time.perf_counter()
            multiply()
            if turn:
                found[name].append(multiply_adds / (time.perf_counter() - begun) / 1e9)
    return found


def report(what: str, ways: dict[str, Multiply], multiply_adds: int, *, turns: int) -> None:
    found = rates(ways, multiply_adds, turns=turns)
    cells = [f"{each.median:.0f} ({each.low:.0f} to {each.high:.0f})" for each in map(spread, found.values())]
    default, ours = found.values()
    gain = ratio(ours, default)
    print(f"| {what} | {' | '.join(cells)} | {gain.median:.2f} ({gain.low:.2f} to {gain.high:.2f}) |", flush=True)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("| product | torch's default | oneDNN | ratio |\n|---|---|---|---|")
    for rows, inner, columns in ((1920, 1024, 1792), (1920, 512, 1792), (6272, 256, 256)):
        a, b = torch.randn(rows, inner), torch.randn(columns, inner)
        ways: dict[str, Multiply] = {
            "default": lambda a=a, b=b: default_product(a, b),  # type: ignore[misc]
            "oneDNN": lambda a=a, b=b: product(a, b),  # type: ignore[misc]
        }
        what = f"whitening ({rows}, {inner}) × ({inner}, {columns})"
        report(what, ways, rows * inner * columns, turns=given.turns)
    for positions, images, dimensions in ((22, 320, 1792), (22, 64, 448)):
        z = torch.randn(positions, images, dimensions)
        ways = {"default": lambda z=z: default_gram(z), "oneDNN": lambda z=z: gram(z)}  # type: ignore[misc]
        what = f"Z·Zᵀ of {positions} × ({images}, {dimensions})"
        report(what, ways, positions * images * images * dimensions, turns=given.turns)


if __name__ == "__main__":
    main()
