"""What decoding JPEGs at a fraction of their size does to verdicts: two artifacts, fitted and judging either way.

python benchmarks/reduced_jpeg.py --data mvtec --category screw --weights mobilenet_v2-imagenet.safetensors

The category's pictures are written as JPEGs (quality 90) of each edge in a folder that is gone afterwards; larger ones
are enlarged, so that only those of their own edge have detail as fine as their pixels. To tell luck from loss, the
same is done with whole JPEGs of quality 95: what nobody can see changes scores as well.
"""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from models.artifact import load
from training.ahead import read_ahead
from training.datasets import test_samples, training_images
from training.evaluate import Evaluation, evaluate
from training.loop import Devices
from training.pipeline import train_category
from training.progress import Progress
from training.recipe import read_recipe
from training.request import TrainingRequest

_CASES = ((512, 128), (1024, 224), (2048, 224))  # edge of the picture, of the network's input


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--arch", default="mobilenet_v2")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def encode(edge: int, quality: int, paths: tuple[Path, Path]) -> None:
    """Write the first, a picture, to the second, a JPEG."""
    source, target = paths
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as picture:
        picture.convert("RGB").resize((edge, edge), Image.Resampling.BICUBIC).save(target, "JPEG", quality=quality)


def as_jpegs(given: argparse.Namespace, folder: Path, *, edge: int, quality: int) -> None:
    """The category's good and test pictures, in MVTec's layout; no masks, as only verdicts are compared."""
    root = given.data / given.category
    sources = [
        *training_images(given.data, given.category),
        *(each.path for each in test_samples(given.data, given.category)),
    ]
    targets = [(folder / given.category / path.relative_to(root)).with_suffix(".jpg") for path in sources]
    for _ in read_ahead(partial(encode, edge, quality), list(zip(sources, targets, strict=True))):
        pass


def judged(given: argparse.Namespace, data: Path, *, image_size: int, reduced: bool) -> Evaluation:
    """Train without any stage or choice, and judge the test pictures."""
    overrides = {
        "preprocess": {"image_size": image_size, "reduced_jpeg": reduced},
        "alignment": {"use": "never"},
        "jigsaw": {"use": "never"},
        "fusion": {"use": "never"},
        "scorer": {"name": "gaussian", "rank": 32, "shrinkage": 0.03, "pooling": 3},
        "map": {"smoothing": 4.0 * image_size / 224},
    }
    request = TrainingRequest(
        data=data,
        category=given.category,
        recipe=read_recipe("default", overrides=overrides),
        arch=given.arch,
        weights=given.weights,
        textures=None,
        kind="object",
        devices=Devices(accelerator="cpu"),
        artifacts=data / "artifacts",
    )
    artifact = load(train_category(request, Progress.silent()).artifact)
    return evaluate(artifact, test_samples(data, given.category))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's."""
    ranks = [np.argsort(np.argsort(scores)) for scores in (first, second)]
    return float(np.corrcoef(ranks)[0, 1])


def compared(usual: Evaluation, other: Evaluation) -> str:
    """Image AUROC, rank correlation of the scores and changed verdicts of another way."""
    scores = ([image.score for image in each.images] for each in (usual, other))
    changed = sum(one.verdict != two.verdict for one, two in zip(usual.images, other.images, strict=True))
    return f"{other.image_auroc:.4f} | {rank_correlation(*scores):.4f} | {changed} of {len(usual.images)}"


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    figures = "image AUROC | rank correlation | verdicts changed"
    print(f"| JPEG | network | whole: image AUROC | reduced: {figures} | whole, quality 95: {figures} |")
    print("|" + "---|" * 9)
    for edge, image_size in _CASES:
        found = []
        for quality, reduced in ((90, False), (90, True), (95, False)):
            with tempfile.TemporaryDirectory() as name:
                as_jpegs(given, Path(name), edge=edge, quality=quality)
                found.append(judged(given, Path(name), image_size=image_size, reduced=reduced))
        usual, fraction, finer = found
        rows = f"{usual.image_auroc:.4f} | {compared(usual, fraction)} | {compared(usual, finer)}"
        print(f"| {edge} px | {image_size} px | {rows} |", flush=True)


if __name__ == "__main__":
    main()
