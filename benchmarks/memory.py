"""Does memory grow with the number of pictures? The peak of a whole training run for several numbers of them.

python benchmarks/memory.py [--images 500 2000] [--arch mobilenet_v2] [--image-size 224] [--align never]

Pictures are dark ellipses on noise, written to a temporary folder; aligned if asked; weights are random, jigsaw and
fusion left out, the scorer is that of the default recipe with all its settings to choose from. What counts is memory
that cannot be given back (RssAnon of Linux, sampled every 50 ms). Small arrays lie in memory (decision 0022); here all
that may lies in files, as on a machine that has no memory to spare: their pages the system drops when it needs room.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

_RECIPE = """
[alignment]
use = "{align}"
ways = ["rotate"]
stretches = [1.5]
[jigsaw]
use = "never"
[fusion]
use = "never"
[scorer]
name = "gaussian"
"""


_IN_FILES = """
import training.scratch
from jigsight import main
training.scratch.available_memory = lambda: 0
main()
"""


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        rng = np.random.default_rng(index)
        picture = rng.normal(200, 5, (128, 128, 3)).clip(0, 255).astype(np.uint8)
        centre, angle = rng.integers(50, 78, 2).tolist(), float(rng.uniform(0, 180))
        cv2.ellipse(picture, centre, (40, 12), angle, 0, 360, (60, 70, 80), -1)
        cv2.imwrite(str(folder / f"{index:05}.png"), picture)


def peak(command: list[str]) -> tuple[float, float]:
    """Peak of a process' anonymous memory in MB, and the seconds that it ran."""
    started, highest = time.perf_counter(), 0
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                highest = max(highest, int(line.split()[1]))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return highest / 1024, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--arch", default="mobilenet_v2")
    parser.add_argument("--align", choices=("never", "always"), default="never")
    parser.add_argument("--image-size", type=int, default=224)
    given = parser.parse_args()
    print("| images | peak memory | against the first | seconds |\n|---|---|---|---|")
    first = None
    for count in given.images:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_pictures(folder / "noise", count)
            (folder / "recipe.toml").write_text(_RECIPE.replace("{align}", given.align))
            command = [sys.executable, "-c", _IN_FILES, "train", "--data", str(folder / "noise"), "--weights", "none"]
            command += ["--arch", given.arch, "--recipe", str(folder / "recipe.toml"), "--kind", "object"]
            command += ["--image-size", str(given.image_size), "--artifacts", str(folder / "artifacts")]
            megabytes, seconds = peak(command)
        first = first or megabytes
        print(f"| {count} | {megabytes:.0f} MB | {megabytes / first - 1:+.1%} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
