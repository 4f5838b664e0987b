"""Smoothing on the map's own grid, as we do, against PaDiM's order: upsample, smooth, take the maximum.

.venv/bin/python benchmarks/smoothing_order.py ARTIFACT DIR
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from models.artifact import load
from models.smoothing import Smoothing
from training.datasets import test_samples
from training.metrics import image_auroc, pixel_auroc
from training.picture_files import read_mask, read_taken


def main() -> None:
    """Score the artifact's category both ways and print both AUROCs."""
    artifact = load(Path(sys.argv[1]))
    if artifact.manifest.detector.preprocess.align is not None:
        raise SystemExit("Give an artifact that was trained with --align never: maps are compared as they lie.")
    detector, size = artifact.detector, artifact.manifest.detector.preprocess.image_size
    literal = Smoothing(artifact.manifest.detector.smoothing)
    ours: list[torch.Tensor] = []
    theirs: list[torch.Tensor] = []
    masks = []
    samples = test_samples(Path(sys.argv[2]), artifact.manifest.category)
    for sample in samples:
        tile = read_taken(sample.path, detector.preprocess).tile.unsqueeze(0)
        with torch.inference_mode():
            distances = detector.scorer(detector.levels(tile)[0]).unsqueeze(1)
            smooth = detector.smoothing(distances.squeeze(1)).unsqueeze(1)
            ours.append(F.interpolate(smooth, (size, size), mode="bilinear")[0, 0])
            theirs.append(literal(F.interpolate(distances, (size, size), mode="bilinear").squeeze(1))[0])
        empty = torch.zeros(size, size, dtype=torch.bool)
        masks.append(detector.preprocess.resize_mask(read_mask(sample.mask)) if sample.mask else empty)
    truth = np.array([not sample.is_good for sample in samples])
    for name, maps in (("own grid", ours), ("upsampled first", theirs)):
        stack = torch.stack(maps)
        image = image_auroc(stack.flatten(1).amax(1).numpy(), truth)
        pixel = pixel_auroc(stack.numpy(), torch.stack(masks).numpy())
        print(f"{name:<16} image AUROC {image:.4f}   pixel AUROC {pixel:.4f}")


if __name__ == "__main__":
    main()
