"""How large are artifacts? One is trained for each backbone and scorer, on a few sample parts with random weights.

python benchmarks/artifact_size.py [--arch wide_resnet50_2] [--images 40]

Sizes do not depend on what the pictures show. The settings are those that take the most room in each recipe.
"""

import argparse
import tempfile
from pathlib import Path

from training.loop import Devices
from training.pipeline import train_category
from training.progress import Progress
from training.recipe import Recipe, read_recipe
from training.request import TrainingRequest
from training.samples import write_category

_OFF = {stage: {"use": "never"} for stage in ("alignment", "jigsaw", "fusion")}
_FIXED = {"shrinkage": 0.1, "pooling": 3}


def recipes() -> dict[str, Recipe]:
    """The Gaussian of `default` and of `small` at their largest, and the dense one of `seed`."""
    found = {}
    for name in ("default", "small"):
        rank = max(read_recipe(name).scorer.rank)
        found[f"{name}, rank {rank}"] = read_recipe(name, overrides={**_OFF, "scorer": {"rank": rank, **_FIXED}})
    found["seed without fusion"] = read_recipe("seed", overrides=_OFF)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="wide_resnet50_2")
    parser.add_argument("--images", type=int, default=40)
    given = parser.parse_args()
    print("| backbone | recipe | artifact | of which backbone |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_category(folder, "flange", train=given.images, test_good=0, test_defective=0, size=256, seed=0)
        for recipe_name, recipe in recipes().items():
            request = TrainingRequest(
                data=folder,
                category="flange",
                recipe=recipe,
                arch=given.arch,
                weights="none",
                textures=None,
                kind="object",
                devices=Devices(),
                artifacts=folder / "artifacts",
            )
            path = train_category(request, Progress.silent()).artifact
            print(f"| {given.arch} | {recipe_name} | {path.stat().st_size / 1e6:.0f} MB | {backbone(path):.0f} MB |")
            path.unlink()


def backbone(path: Path) -> float:
    """Megabytes of the backbone in an artifact."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return sum(file.get_tensor(name).nbytes for name in file.keys() if name.startswith("backbone.")) / 1e6  # noqa: SIM118


if __name__ == "__main__":
    main()
