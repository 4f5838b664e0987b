"""Time from a picture's bytes to the network's tile: JPEGs whole and reduced, PNGs as Pillow reads them and as we do.

python benchmarks/decoding.py [PICTURE] [--repeats 15]

The picture (by default a drawn one), enlarged and with a camera's noise, is encoded at 1024², 2048² and 4096²; colour
and grey, JPEG quality 90. Ways are taken in turn, on one thread, with memory as the service keeps it: medians in
milliseconds, and quartiles.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from models.allocator import keep_memory
from models.preprocess import Preprocess, PreprocessConfig
from models.taken import take

_EDGES = (1024, 2048, 4096)
_NOISE = 3.0  # grey levels


class Time(NamedTuple):
    """Milliseconds."""

    median: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.median:.1f} ({self.lower:.1f} to {self.upper:.1f})"


def drawn() -> Image.Image:
    """A part of a machine, more or less."""
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    ring = 130 + 80 * np.cos(9 * np.hypot(x, y)) + 20 * np.sin(40 * x)
    return Image.fromarray(np.stack([ring, 0.9 * ring + 10, 0.8 * ring + 30], axis=-1).clip(0, 255).astype(np.uint8))


def camera(picture: Image.Image, edge: int) -> Image.Image:
    """The picture at that edge, with noise."""
    pixels = np.asarray(picture.resize((edge, edge), Image.Resampling.BICUBIC), np.float32)
    noise = np.random.default_rng(0).normal(0, _NOISE, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def encoded(picture: Image.Image, name: str) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, name, quality=90)
    return buffer.getvalue()


def by_pillow(data: bytes, preprocess: Preprocess) -> torch.Tensor:
    """The tile, without a look at the file's checksums or at anything else that might be wrong with it."""
    with Image.open(BytesIO(data)) as picture:
        return preprocess.resize(np.array(picture.convert("RGB")))


def timed(ways: Sequence[Callable[[], object]], *, repeats: int) -> list[Time]:
    """Each way's times, one run of each after the other; the first round is not counted."""
    spent: list[list[float]] = [[] for _ in ways]
    for _, (way, times) in itertools.product(range(repeats + 1), list(zip(ways, spent, strict=True))):
        started = time.perf_counter()
        way()
        times.append(1000 * (time.perf_counter() - started))
    quartiles = (statistics.quantiles(times[1:], n=4) for times in spent)
    return [Time(median, lower, upper) for lower, median, upper in quartiles]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    source = drawn() if given.picture is None else Image.open(given.picture).convert("RGB")
    whole, reduced = (Preprocess(PreprocessConfig(reduced_jpeg=how)) for how in (False, True))
    print("| picture | JPEG whole | reduced | ratio | PNG, Pillow alone | ours | ratio |")
    print("|---|---|---|---|---|---|---|")
    for edge, mode in itertools.product(_EDGES, ("RGB", "L")):
        picture = camera(source, edge).convert(mode)
        jpeg, png = encoded(picture, "JPEG"), encoded(picture, "PNG")
        ways = (
            partial(take, jpeg, whole),
            partial(take, jpeg, reduced),
            partial(by_pillow, png, whole),
            partial(take, png, whole),
        )
        first, second, third, fourth = timed(ways, repeats=given.repeats)
        print(
            f"| {edge}² {'grey' if mode == 'L' else 'colour'} "
            f"| {first} | {second} | {first.median / second.median:.1f} "
            f"| {third} | {fourth} | {third.median / fourth.median:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
