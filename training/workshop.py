"""Where candidate detectors are put together, fitted and compared: what the stages of a run share."""

import copy
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.alignment import AlignmentConfig, Pose
from models.backbone import Architecture, Backbone, build_backbone
from models.detector import (
    Detector,
    DetectorConfig,
    ScorerConfig,
    build_detector,
    build_fusion,
    build_smoothing,
    finish,
)
from models.errors import RecipeError
from models.ignored import kept_positions
from models.manifest import ThresholdRecord
from models.mfcsam import AnyFusion
from models.precision import pick_precision, round_to_stored
from models.preprocess import PreprocessConfig
from models.smoothing import Smoothing
from models.weights import fingerprint, load_weights
from models.whole_numbers import in_whole_numbers, renormalise
from training.arrays import Indices
from training.calibrate import good_scores, threshold
from training.choose import Candidate, ValidationSet, figures_of
from training.distances import Distances
from training.features import Features, extract
from training.finetune import finetune
from training.fit import Fitter
from training.folds import assign_folds
from training.fuse import train_fusion
from training.loop import Devices
from training.progress import Progress
from training.recipe import Recipe
from training.synthetic import Synthetic, Tiles

_BATCH = 16
_FOLDS_SHARED = 20  # at most where pictures are else scored one by one: the dense Gaussian is fitted anew for each


@dataclass(frozen=True)
class Workshop:
    """The fixed circumstances of a run. `folder` holds what a killed run goes on from.

    `ignored`, (h, w) of any size, is true where pictures are not looked at; None: nowhere.
    """

    recipe: Recipe
    arch: Architecture
    pretrained: bool
    devices: Devices
    folder: Path
    progress: Progress
    ignored: NDArray[np.bool_] | None = None

    @property
    def device(self) -> torch.device:
        """Where features are extracted and candidates judged."""
        return torch.device(self.devices.accelerator)

    @property
    def dtype(self) -> torch.dtype:
        """What features are extracted in."""
        return pick_precision(self.devices.precision, self.device)

    @property
    def keep(self) -> Tensor | None:
        """Where pictures are looked at, (h, w) bool of any size; None: everywhere."""
        return None if self.ignored is None else torch.from_numpy(~self.ignored)

    @property
    def fitter(self) -> Fitter:
        """Fits the recipe's scorer."""
        recipe = self.recipe
        return Fitter(recipe.scorer, self.arch, recipe.preprocess.side, recipe.seed, self.device, self.progress)

    @property
    def settings(self) -> int:
        """How many combinations of scorer settings and smoothing the recipe leaves to choose from."""
        return self.fitter.settings() * len(self.recipe.map.smoothing)

    def preprocess(self, align: AlignmentConfig | None) -> PreprocessConfig:
        """The recipe's preprocessing in whole numbers, with an alignment or without: `load_backbone` goes with it."""
        return in_whole_numbers(self.recipe.preprocess).model_copy(update={"align": align})

    def config(
        self, *, align: AlignmentConfig | None, fused: bool, scorer: ScorerConfig, smoothing: float
    ) -> DetectorConfig:
        """The shape of a detector."""
        return DetectorConfig(
            arch=self.arch,
            preprocess=self.preprocess(align),
            fusion=self.recipe.fusion.form if fused else "none",
            scorer=scorer,
            smoothing=smoothing,
        )

    def new_backbone(self) -> Backbone:
        """A backbone with random weights that depend on the recipe's seed alone."""
        torch.manual_seed(self.recipe.seed)
        return build_backbone(self.arch).eval()

    def load_backbone(self, weights: str) -> tuple[Backbone, str]:
        """A backbone with weights from `load_weights`, for pictures as `preprocess` says, and their fingerprint.

        In a file they are for pictures as the recipe says. Raises WeightsError.
        """
        backbone = self.new_backbone()
        given = self.recipe.preprocess
        sha256 = load_weights(backbone, self.arch, weights, preprocess=given)
        renormalise(backbone, given, self.preprocess(None))
        return backbone, sha256

    def tune(self, backbone: Backbone, source: Synthetic) -> Backbone:
        """A copy of `backbone`, fine-tuned by the jigsaw."""
        torch.manual_seed(self.recipe.seed + 1)
        tuned = copy.deepcopy(backbone)
        finetune(
            tuned,
            self.arch,
            source,
            preprocess=self.preprocess(None),
            section=self.recipe.jigsaw,
            pretrained=self.pretrained,
            devices=self.devices,
            checkpoint=self.folder / f"jigsaw-{_frame(source)}-{_name(backbone)}.pt",
            progress=self.progress,
        )
        return tuned

    def fuse(self, backbone: Backbone, source: Synthetic) -> AnyFusion:
        """A fusion trained on top of `backbone`, which stays as it is."""
        torch.manual_seed(self.recipe.seed + 2)
        fusion = build_fusion(self.recipe.fusion.form, self.arch, self.preprocess(None))
        assert fusion is not None, "the recipe's form is one"
        train_fusion(
            fusion,
            backbone,
            self.arch,
            source,
            preprocess=self.preprocess(None),
            section=self.recipe.fusion,
            devices=self.devices,
            # Of this backbone alone: whether the jigsaw stays might be decided otherwise when a run goes on.
            checkpoint=self.folder / f"fusion-{_frame(source)}-{_name(backbone)}.pt",
            progress=self.progress,
        )
        return fusion

    def assemble(self, config: DetectorConfig, backbone: Backbone, fusion: AnyFusion | None) -> Detector:
        """A detector around both, with weights as an artifact stores them and an unfitted scorer."""
        detector = build_detector(config, backbone=copy.deepcopy(backbone))
        if fusion is not None and detector.fusion is not None:
            detector.fusion.load_state_dict(fusion.state_dict())
        try:
            round_to_stored(detector)
        except ValueError as error:
            raise RecipeError(f"The backbone's weights cannot be used: {error}. Look at --weights.") from error
        detector.smoothing = self._smoothing(config)
        return detector.eval().requires_grad_(False)

    def _smoothing(self, config: DetectorConfig) -> Smoothing:
        """The detector's smoothing, which leaves out what is ignored."""
        smoothing = build_smoothing(config)
        if self.ignored is not None and smoothing.keep is not None:
            grid = (config.map_edge, config.map_edge)
            smoothing.keep.copy_(kept_positions(self.ignored, config.preprocess, grid))
        return smoothing

    def fit(self, detector: Detector, tiles: Tiles, *, folds: Indices | None) -> tuple[Distances, Pose | None]:
        """Fit the detector's scorer, in place, to good tiles; also the distances behind the threshold, and poses.

        `folds` as `Fitter.fit` says; None: no distances are wanted.
        """
        features, pose = self._extract(detector, tiles.batches(), len(tiles))
        return self.fitter.fit(detector.scorer, features, folds=folds), pose

    def _extract(self, detector: Detector, batches: Iterable[Tensor], count: int) -> tuple[Features, Pose | None]:
        """The features of pictures, as `detector`, which is on the CPU, will see them in production."""
        seer = detector.for_levels(self.device, self.dtype)
        return extract(seer, batches, count=count, folder=self.folder, device=self.device, progress=self.progress)

    def candidates(
        self,
        backbone: Backbone,
        fusion: AnyFusion | None,
        *,
        align: AlignmentConfig | None,
        good: Tiles,
        held_out: ValidationSet,
    ) -> list[Candidate]:
        """What every setting of the scorer and the smoothing is worth, fitted to `good`, on held-out tiles."""
        smoothings = self.recipe.map.smoothing
        config = partial(self.config, align=align, fused=fusion is not None)
        first = config(scorer=self.fitter.first(len(good)), smoothing=smoothings[0])
        seer = self.assemble(first, backbone, fusion)
        count = len(good) + len(held_out.tiles)
        features, poses = self._extract(seer, chain(good.batches(), held_out.tiles.split(_BATCH)), count)
        known, asked = np.arange(len(good)), np.arange(len(good), count)
        pose = None if poses is None else poses.of(slice(len(good), None))
        truth = held_out.truth((first.map_edge, first.map_edge))
        found = []
        for scorer, maps in self.fitter.trials(features, known=known, asked=asked):
            for width in smoothings:
                smoothing = self._smoothing(config(scorer=scorer, smoothing=width))
                finished = finish(maps, pose, alignment=seer.alignment, smoothing=smoothing)
                found.append(Candidate(scorer, width, figures_of(finished, truth)))
        return found

    def complete(
        self, detector: Detector, tiles: Tiles, *, groups: Indices
    ) -> tuple[ThresholdRecord, Tensor, str | None]:
        """Fit a detector's scorer, in place: the threshold, the out-of-sample scores (n,), and a warning, if any.

        Pictures of one of the `groups` (n,), which are numbered from 0, are scored by fits that know none of them, and
        each by the highest of their scores: the threshold is a quantile of what the artifact keeps. For the rate that
        is promised they count as one.
        """
        section, count = self.recipe.calibration, int(groups.max()) + 1
        folds = assign_folds(count, self._folds(groups), seed=self.recipe.seed)[groups]
        distances, pose = self.fit(detector, tiles, folds=folds)
        assert distances.in_sample is not None, "folds were given"
        assert distances.out_of_sample is not None, "folds were given"
        within = good_scores(distances.in_sample, pose, detector)
        outside = good_scores(distances.out_of_sample, pose, detector)
        number = torch.from_numpy(groups)
        scores = torch.full((count,), -torch.inf).scatter_reduce(0, number, outside.images, "amax")[number]
        record, warning = threshold(
            section,
            in_sample=within.images,
            out_of_sample=scores,
            different=count,
            pixel=outside.pixel_threshold,
        )
        return record, scores, warning

    def _folds(self, groups: Indices) -> int:
        """How many the recipe wishes. One for each is quick only where nearly all are alone in theirs."""
        wished = self.recipe.calibration.folds
        if not isinstance(wished, str):
            return wished
        sizes = np.bincount(groups)
        return len(sizes) if (sizes > 1).sum() <= _FOLDS_SHARED else _FOLDS_SHARED


def _name(backbone: Backbone) -> str:
    """Of its weights, and so of the normalisation that they are for."""
    return fingerprint(backbone.state_dict())[:12]


def _frame(source: Synthetic) -> str:
    """A name for the alignment under which a stage learns: another one's checkpoint is not taken up."""
    if source.alignment is None:
        return "plain"
    return hashlib.sha256(source.alignment.config.model_dump_json().encode()).hexdigest()[:12]
