"""What half precision costs the compact Gaussian: scores with directions in single and in half precision.

python benchmarks/half_precision.py ARTIFACT --data DIR [--category C]

Fits the artifact's scorer to the good training pictures once, keeps the directions before they are rounded, and judges
the test pictures with both. (The backbone's weights are stored in half precision too, but are rounded before the fit.)
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from models.artifact import load
from models.compact_gaussian import CompactGaussian
from models.locate_artifact import find_artifact
from training import fit_gaussian
from training.datasets import test_samples, training_images
from training.features import extract
from training.metrics import image_auroc
from training.picture_files import read_taken
from training.pictures import Pictures
from training.progress import Progress


def exact(values: torch.Tensor, vectors: torch.Tensor, shrinkage: float) -> torch.Tensor:
    """`training.fit_gaussian.shortened` without the rounding."""
    s = (1 - shrinkage) * values
    return vectors * (s / (s + shrinkage)).sqrt().unsqueeze(1)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category")
    given = parser.parse_args()
    artifact = load(find_artifact(given.artifact))
    detector, category = artifact.detector, given.category or artifact.manifest.category
    scorer, silent, cpu = detector.scorer, Progress.silent(), torch.device("cpu")
    assert isinstance(scorer, CompactGaussian), "only the compact Gaussian is halved"
    samples = test_samples(given.data, category)
    tiles = torch.stack([read_taken(sample.path, detector.preprocess).tile for sample in samples])
    with tempfile.TemporaryDirectory() as name:
        images = Pictures(training_images(given.data, category), Path(name), silent).read(detector.preprocess)
        features, _ = extract(
            detector, images.split(16), count=len(images), folder=Path(name), device=cpu, progress=silent
        )
        scorer.directions = torch.zeros_like(scorer.directions, dtype=torch.float32)
        fit_gaussian.shortened = exact
        fit_gaussian.fit_gaussian(scorer, features, epsilon=0.01, folds=None, device=cpu, progress=silent)
    single = torch.cat([detector(batch).score for batch in tiles.split(16)]).numpy()
    scorer.directions = scorer.directions.half()
    half = torch.cat([detector(batch).score for batch in tiles.split(16)]).numpy()
    defective = np.array([not sample.is_good for sample in samples])
    change = np.abs(half / single - 1)
    print(f"largest change of a score {change.max():.2e}, mean {change.mean():.2e}")
    print(f"image AUROC {image_auroc(single, defective):.5f} single, {image_auroc(half, defective):.5f} half")


if __name__ == "__main__":
    main()
