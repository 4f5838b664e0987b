"""Where candidate detectors are put together, fitted and compared: what the stages of a run share."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.backbone import Architecture, Backbone, build_backbone, channels, grids
from models.detector import DenseGaussianConfig, Detector, DetectorConfig, build_detector
from models.gaussian import select_channels
from models.mfcsam import Fusion
from models.weights import fingerprint
from training.choose import Figures, ValidationSet, validate
from training.finetune import finetune
from training.fit import GaussianFit, extract, fit_gaussian
from training.fuse import train_fusion
from training.loop import Devices
from training.progress import Progress
from training.recipe import Recipe
from training.synthetic import Synthetic, Tiles


@dataclass(frozen=True)
class Workshop:
    """The fixed circumstances of a run. `folder` holds what a killed run goes on from."""

    recipe: Recipe
    arch: Architecture
    pretrained: bool
    devices: Devices
    folder: Path
    progress: Progress

    @property
    def device(self) -> torch.device:
        """Where features are extracted and candidates judged."""
        return torch.device(self.devices.accelerator)

    def config(self, *, fused: bool) -> DetectorConfig:
        """The shape of a detector with or without fusion."""
        gaussian = self.recipe.gaussian
        return DetectorConfig(
            arch=self.arch,
            preprocess=self.recipe.preprocess,
            fusion="mfcsam" if fused else "none",
            scorer=DenseGaussianConfig(channels=min(gaussian.channels, sum(channels(self.arch)))),
            smoothing=gaussian.smoothing,
        )

    def new_backbone(self) -> Backbone:
        """A backbone with random weights that depend on the recipe's seed alone."""
        torch.manual_seed(self.recipe.seed)
        return build_backbone(self.arch).eval()

    def tune(self, backbone: Backbone, source: Synthetic) -> Backbone:
        """A copy of `backbone`, fine-tuned by the jigsaw."""
        torch.manual_seed(self.recipe.seed + 1)
        tuned = copy.deepcopy(backbone)
        finetune(
            tuned,
            self.arch,
            source,
            preprocess=self.recipe.preprocess,
            section=self.recipe.jigsaw,
            pretrained=self.pretrained,
            devices=self.devices,
            checkpoint=self.folder / "jigsaw.pt",
            progress=self.progress,
        )
        return tuned

    def fuse(self, backbone: Backbone, source: Synthetic) -> Fusion:
        """A fusion trained on top of `backbone`, which stays as it is."""
        torch.manual_seed(self.recipe.seed + 2)
        size = self.recipe.preprocess.image_size
        fusion = Fusion(channels(self.arch), grids(size))
        train_fusion(
            fusion,
            backbone,
            self.arch,
            source,
            preprocess=self.recipe.preprocess,
            section=self.recipe.fusion,
            devices=self.devices,
            # Of this backbone alone: whether the jigsaw stays might be decided otherwise when a run goes on.
            checkpoint=self.folder / f"fusion-{fingerprint(backbone.state_dict())[:12]}.pt",
            progress=self.progress,
        )
        return fusion

    def assemble(self, backbone: Backbone, fusion: Fusion | None) -> Detector:
        """A detector around both, with an unfitted scorer over the selected channels."""
        detector = build_detector(self.config(fused=fusion is not None))
        detector.backbone.load_state_dict(backbone.state_dict())
        if fusion is not None and detector.fusion is not None:
            detector.fusion.load_state_dict(fusion.state_dict())
        scorer = detector.scorer
        scorer.indices.copy_(select_channels(sum(scorer.channels), len(scorer.indices), seed=self.recipe.seed))
        return detector.eval().requires_grad_(False).to(self.device)

    def fit(self, detector: Detector, tiles: Tiles, *, folds: NDArray[np.int64] | None) -> GaussianFit:
        """Fit the detector's scorer, in place, to good tiles; also the distances behind the threshold."""
        file = self.folder / "features.npy"
        features = extract(detector, tiles.images, file=file, device=self.device, progress=self.progress)
        fitted = fit_gaussian(features, epsilon=self.recipe.gaussian.epsilon, folds=folds, progress=self.progress)
        file.unlink()
        detector.scorer.mean.copy_(fitted.mean)
        detector.scorer.whitening.copy_(fitted.whitening)
        return fitted

    def figures(self, backbone: Backbone, fusion: Fusion | None, *, good: Tiles, held_out: ValidationSet) -> Figures:
        """How well a candidate, fitted to `good`, tells synthetic defects in held-out tiles."""
        detector = self.assemble(backbone, fusion)
        self.fit(detector, good, folds=None)
        with self.progress.step("synthetic validation", 1) as step:
            figures = validate(detector, held_out, device=self.device)
            step.advance(f"image AUROC {figures.image_auroc:.4f}, pixel AUROC {figures.pixel_auroc:.4f}")
        return figures
