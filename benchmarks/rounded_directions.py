"""What rounding its directions costs the compact Gaussian, and what iterating for them does.

python benchmarks/rounded_directions.py ARTIFACT --data DIR [--category C]

Fits the artifact's scorer to the good training pictures, with directions decomposed exactly and kept in float32,
float16 and int8, and iterated for and kept in int8, as fits do it; judges the test pictures with each, in float32 and
in what this CPU computes in. Markdown. (The backbone's weights are rounded too, but before the fit.)
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from reduced_jpeg import rank_correlation
from torch import Tensor

from models.artifact import load
from models.compact_gaussian import CompactGaussian
from models.detector import Detector
from models.locate_artifact import find_artifact
from models.precision import pick_precision, round_to_stored
from training import eigenpairs, fit_gaussian
from training.datasets import test_samples, training_images
from training.features import extract
from training.metrics import image_auroc
from training.picture_files import read_taken
from training.pictures import Pictures
from training.progress import Progress

_BATCH = 16
_CPU = torch.device("cpu")
_Rounded = tuple[Tensor, Tensor]

to_int8 = fit_gaussian.shortened
iterates = eigenpairs.iterates


def never(*_: int) -> bool:
    """`training.eigenpairs.iterates` of fits that decompose whatever there is."""
    return False


def exact(values: Tensor, vectors: Tensor, shrinkage: float) -> _Rounded:
    """`training.fit_gaussian.shortened` without the rounding."""
    s = (1 - shrinkage) * values
    return vectors * (s / (s + shrinkage)).sqrt().unsqueeze(1), torch.ones_like(values)


def to_float16(values: Tensor, vectors: Tensor, shrinkage: float) -> _Rounded:
    """As artifacts of format 2 have them."""
    directions, _ = exact(values, vectors, shrinkage)
    half, wanted = directions.half(), directions.square().sum(1)
    return half, torch.where(wanted > 0.01, wanted / half.float().square().sum(1), 1)


def scores(detector: Detector, tiles: Tensor, dtype: torch.dtype) -> np.ndarray:
    ready = detector.for_scoring(_CPU, dtype)
    return torch.cat([ready(batch).score for batch in tiles.split(_BATCH)]).numpy()


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category")
    given = parser.parse_args()
    artifact = load(find_artifact(given.artifact))
    detector, category = artifact.detector, given.category or artifact.manifest.category
    scorer, silent, best = detector.scorer, Progress.silent(), pick_precision("auto", _CPU)
    assert isinstance(scorer, CompactGaussian), "only the compact Gaussian has directions"
    round_to_stored(detector)
    samples = test_samples(given.data, category)
    tiles = torch.stack([read_taken(sample.path, detector.preprocess).tile for sample in samples])
    found = {}
    with tempfile.TemporaryDirectory() as name:
        images = Pictures(training_images(given.data, category), Path(name), silent).read(detector.preprocess)
        seer = detector.for_scoring(_CPU, best)
        features, _ = extract(
            seer, images.split(_BATCH), count=len(images), folder=Path(name), device=_CPU, progress=silent
        )
        for label, rounding, dtype, iterated in (
            ("float32", exact, torch.float32, False),
            ("float16", to_float16, torch.float16, False),
            ("int8", to_int8, torch.int8, False),
            ("int8, iterated", to_int8, torch.int8, True),
        ):
            fit_gaussian.shortened = rounding
            fit_gaussian.iterates = eigenpairs.iterates = iterates if iterated else never
            scorer.directions = torch.zeros_like(scorer.directions, dtype=dtype)
            fit_gaussian.fit_gaussian(scorer, features, epsilon=0.01, folds=None, device=_CPU, progress=silent)
            for dtype in dict.fromkeys((torch.float32, best)):
                found[label, dtype] = scores(detector, tiles, dtype)
    defective = np.array([not sample.is_good for sample in samples])
    print("| directions | computed in | largest change | mean change | rank correlation | image AUROC |")
    print("|---|---|---|---|---|---|")
    for (label, dtype), these in found.items():
        reference = found["float32", dtype]
        change = np.abs(these / reference - 1)
        correlation = rank_correlation(these, reference)
        figures = f"{change.max():.1e} | {change.mean():.1e} | {correlation:.6f} | {image_auroc(these, defective):.5f}"
        print(f"| {label} | {str(dtype).removeprefix('torch.')} | {figures} |")


if __name__ == "__main__":
    main()
