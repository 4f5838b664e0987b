"""Do thresholds keep their promise? The share of good parts rejected, over random splits of a category's good pictures.

python benchmarks/conformal.py ARTIFACT --data DIR [--category C] [--splits 20]

Each split takes a fifth of all good pictures (train/good and test/good) out, fits the artifact's scorer to the others,
calibrates on them as training does, and counts how many of the fifth are rejected at each rate. Backbone, alignment
and settings stay the artifact's. Features are extracted once. Markdown on stdout.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from models.artifact import load
from models.backbone import channels
from models.calibration import Calibration
from models.detector import build_scorer
from models.locate_artifact import find_artifact
from training.calibrate import good_scores
from training.datasets import test_samples, training_images
from training.features import extract
from training.fit import Fitter
from training.folds import assign_folds
from training.pictures import Pictures
from training.progress import Progress
from training.recipe import Recipe

RATES = (0.01, 0.02, 0.05, 0.1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category")
    parser.add_argument("--splits", type=int, default=20)
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    given = arguments()
    artifact = load(find_artifact(given.artifact))
    detector, config = artifact.detector, artifact.manifest.detector
    category, silent = given.category or artifact.manifest.category, Progress.silent()
    recipe = Recipe.model_validate(artifact.manifest.recipe)
    good = [sample.path for sample in test_samples(given.data, category) if sample.is_good]
    paths = training_images(given.data, category) + good
    side, cpu = config.preprocess.side, torch.device("cpu")
    fitter = Fitter(recipe.scorer, config.arch, side, recipe.seed, cpu, silent)
    with tempfile.TemporaryDirectory() as name:
        images = Pictures(paths, Path(name), silent).read(detector.preprocess)
        count = len(images)
        features, pose = extract(
            detector, images.split(16), count=count, folder=Path(name), device=cpu, progress=silent
        )
        folds = recipe.calibration.folds
        rejected: dict[float, list[float]] = {rate: [] for rate in RATES}
        for split in range(given.splits):
            order = np.random.default_rng([split, count]).permutation(count)
            held, known = np.sort(order[: count // 5]), np.sort(order[count // 5 :])
            seen, unseen = (None if pose is None else pose.of(torch.from_numpy(some)) for some in (known, held))
            scorer = build_scorer(config.scorer, channels(config.arch), side)
            assigned = assign_folds(len(known), folds if isinstance(folds, int) else len(known), seed=split)
            distances = fitter.fit(scorer, features.subset(known), folds=assigned)
            calibration = Calibration(good_scores(distances.out_of_sample, seen, detector).images)
            maps = torch.cat([scorer(levels) for levels in features.batches(indices=held)])
            scores = good_scores(maps, unseen, detector).images
            for rate in RATES:
                rejected[rate].append(float((scores > calibration.threshold(rate)).double().mean()))
            print(f"split {split}: " + ", ".join(f"{rate:g}: {shares[-1]:.3f}" for rate, shares in rejected.items()))
    print(f"\n{given.splits} splits, {len(known)} pictures to fit and calibrate, {len(held)} to count\n")
    print("| wished rate | rejected, mean | its standard error | lowest split | highest split |\n|---|---|---|---|---|")
    for rate, shares in rejected.items():
        error = np.std(shares, ddof=1) / np.sqrt(len(shares))
        print(f"| {rate:g} | {np.mean(shares):.4f} | {error:.4f} | {min(shares):.3f} | {max(shares):.3f} |")


if __name__ == "__main__":
    main()
