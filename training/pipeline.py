"""A whole training run: from a folder of good pictures to an artifact (seed, steps 1 to 6).

read -> kind -> [jigsaw] -> [fusion] -> Gaussian -> threshold -> artifact. The two stages in brackets stay, go
or are chosen, as the recipe says. Nothing but the good training pictures is ever opened.
"""

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.artifact import load, save
from models.backbone import Architecture, Backbone
from models.detector import Detector
from models.errors import DatasetError, RecipeError
from models.manifest import (
    CATEGORY_PATTERN,
    Choice,
    DatasetRecord,
    Kind,
    Manifest,
    ThresholdRecord,
    WeightsRecord,
)
from models.mfcsam import Fusion
from models.preprocess import Preprocess
from models.weights import NONE, load_weights
from training.batch_norm import estimate_batch_norm
from training.calibrate import image_scores, threshold
from training.choose import Figures, ValidationSet, decide, make_validation_set
from training.datasets import fingerprint, read_image, training_images
from training.fit import assign_folds
from training.foreground import decide_kind
from training.loop import Devices
from training.progress import Progress
from training.recipe import Recipe, Use
from training.synthetic import Synthetic, Tiles, make_tiles
from training.textures import FolderTextures, ProceduralTextures, Textures
from training.workshop import Workshop

_ENOUGH_TO_CHOOSE = 10  # good images; with fewer, a fifth of them says nothing about a stage
_RECORDED_PACKAGES = ("jigsight", "numpy", "opencv-python-headless", "pillow", "torch", "torchvision")


@dataclass(frozen=True)
class TrainingRequest:
    """What a person asks for. `textures` None: procedural ones."""

    data: Path
    category: str | None
    recipe: Recipe
    arch: Architecture
    weights: str
    textures: Path | None
    kind: Literal["auto", "object", "texture"]
    devices: Devices
    artifacts: Path


@dataclass(frozen=True)
class TrainingResult:
    """What came of it; `seconds` per step, `warnings` for the person who trained."""

    artifact: Path
    category: str
    version: str
    kind: Kind
    threshold: ThresholdRecord
    choices: tuple[Choice, ...]
    validation: dict[str, float | None]
    seconds: dict[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Stages:
    """The parts of the detector after choosing, and why they are what they are."""

    backbone: Backbone
    fusion: Fusion | None
    choices: tuple[Choice, ...]
    figures: Figures | None


def train_category(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Train one category and write its artifact.

    A run that was killed and is started again with the same arguments goes on where it was, and ends in the
    same bytes. Raises DatasetError, RecipeError or WeightsError with what to do.
    """
    category = _category_name(request)
    paths = training_images(request.data, request.category)
    backbone = _new_workshop(request, Path(), progress).new_backbone()
    weights = WeightsRecord(
        source=Path(request.weights).name, sha256=load_weights(backbone, request.arch, request.weights)
    )
    textures, textures_id = _textures(request.textures)
    images = _read(paths, Preprocess(request.recipe.preprocess), progress)
    kind, kind_reason = _kind(request.kind, images)
    progress.say(f"{category}: {len(images)} good images; {kind}, {kind_reason}")

    dataset = DatasetRecord(images=len(images), fingerprint=fingerprint(paths))
    if request.weights == NONE:
        estimate_batch_norm(backbone, images, request.recipe.preprocess)
    folder = _working_folder(request, category, kind, (dataset.fingerprint, weights.sha256, textures_id))
    workshop = _new_workshop(request, folder, progress)

    tiles = make_tiles(images, kind)
    stages = _stages(workshop, backbone, tiles, kind, textures)
    detector = workshop.assemble(stages.backbone, stages.fusion)
    record, scores, warning = _fit_and_calibrate(workshop, detector, tiles)
    manifest = Manifest(
        category=category,
        kind=kind,
        kind_reason=kind_reason,
        detector=workshop.config(fused=stages.fusion is not None),
        weights=weights,
        threshold=record,
        choices=stages.choices,
        validation=_validation(stages.figures),
        dataset=dataset,
        textures=textures_id,
        recipe=request.recipe.model_dump(mode="json"),
        packages={name: package_version(name) for name in _RECORDED_PACKAGES},
    )
    path = save(detector, manifest, scores, folder=request.artifacts)
    artifact = load(path)  # what was written is what will be served: prove it can be read
    shutil.rmtree(folder)
    return TrainingResult(
        artifact=path,
        category=category,
        version=artifact.version,
        kind=kind,
        threshold=record,
        choices=stages.choices,
        validation=manifest.validation,
        seconds={name: round(spent, 3) for name, spent in progress.seconds.items()},
        warnings=(warning,) if warning else (),
    )


def _stages(workshop: Workshop, backbone: Backbone, tiles: Tiles, kind: Kind, textures: Textures) -> _Stages:
    """Run the jigsaw and the fusion as the recipe says: always, never, or where they gain."""
    recipe = workshop.recipe
    uses: dict[Literal["jigsaw", "fusion"], Use] = {"jigsaw": recipe.jigsaw.use, "fusion": recipe.fusion.use}
    reasons = {stage: f"the recipe says {use}" for stage, use in uses.items()}
    if kind == "texture" and uses["jigsaw"] != "never":
        uses["jigsaw"], reasons["jigsaw"] = "never", "a texture has no shape for a jigsaw to teach"
    for stage, use in uses.items():
        if use == "choose" and len(tiles) < _ENOUGH_TO_CHOOSE:
            uses[stage] = "never"
            reasons[stage] = f"{len(tiles)} good images are too few to measure it ({_ENOUGH_TO_CHOOSE} would do)"

    learning, held_out = tiles, None
    if "choose" in uses.values():
        learning, held_out = _hold_out(workshop, tiles, textures)
    source = Synthetic(learning, textures, recipe.seed)

    fusion: Fusion | None = None
    figures = workshop.figures(backbone, None, good=learning, held_out=held_out) if held_out is not None else None
    choices = []
    for stage, use in uses.items():
        if use == "never":
            choices.append(Choice(stage=stage, kept=False, reason=reasons[stage]))
            continue
        tuned = workshop.tune(backbone, source) if stage == "jigsaw" else backbone
        fused = workshop.fuse(backbone, source) if stage == "fusion" else fusion
        choice = Choice(stage=stage, kept=True, reason=reasons[stage])
        if held_out is not None and figures is not None:
            with_ = workshop.figures(tuned, fused, good=learning, held_out=held_out)
            choice = decide(stage, figures, with_, margin=recipe.validation.margin) if use == "choose" else choice
            figures = with_ if choice.kept else figures
        if choice.kept:
            backbone, fusion = tuned, fused
        choices.append(choice)
        workshop.progress.say(f"{stage}: {'kept' if choice.kept else 'left out'}; {choice.reason}")
    return _Stages(backbone, fusion, tuple(choices), figures)


def _hold_out(workshop: Workshop, tiles: Tiles, textures: Textures) -> tuple[Tiles, ValidationSet]:
    section, seed = workshop.recipe.validation, workshop.recipe.seed
    order = np.random.default_rng([seed, len(tiles)]).permutation(len(tiles))
    count = max(2, round(section.share * len(tiles)))
    held = Synthetic(tiles.subset(sorted(order[:count].tolist())), textures, seed)
    return tiles.subset(sorted(order[count:].tolist())), make_validation_set(held, defects=section.defects)


def _fit_and_calibrate(
    workshop: Workshop, detector: Detector, tiles: Tiles
) -> tuple[ThresholdRecord, Tensor, str | None]:
    section = workshop.recipe.calibration
    folds = section.folds
    assigned = None if isinstance(folds, str) else assign_folds(len(tiles), folds, seed=workshop.recipe.seed)
    fitted = workshop.fit(detector, tiles, folds=assigned)
    detector.cpu()
    in_sample, out_of_sample = (
        image_scores(distances, detector.smoothing, detector.scorer.grid)
        for distances in (fitted.in_sample, fitted.out_of_sample)
    )
    record, warning = threshold(section, in_sample=in_sample, out_of_sample=out_of_sample)
    return record, out_of_sample, warning


def _category_name(request: TrainingRequest) -> str:
    name = request.category or request.data.resolve().name
    if not re.fullmatch(CATEGORY_PATTERN, name):
        raise DatasetError(
            f"'{name}' cannot be a category's name: up to 64 letters, digits, '-' and '_'. "
            "Give another with --category."
        )
    return name


def _read(paths: list[Path], preprocess: Preprocess, progress: Progress) -> Tensor:
    tiles = []
    with progress.step("reading images", len(paths)) as step:
        for path in paths:
            tiles.append(preprocess.resize(read_image(path)))
            step.advance()
    return torch.stack(tiles)


def _kind(wished: Literal["auto", "object", "texture"], images: Tensor) -> tuple[Kind, str]:
    if wished != "auto":
        return wished, "as asked"
    decision = decide_kind([image.permute(1, 2, 0).numpy() for image in images])
    return decision.kind, decision.reason


def _textures(directory: Path | None) -> tuple[Textures, str]:
    if directory is None:
        return ProceduralTextures(), "procedural"
    textures = FolderTextures(directory)
    return textures, fingerprint(textures.paths)


def _new_workshop(request: TrainingRequest, folder: Path, progress: Progress) -> Workshop:
    return Workshop(
        recipe=request.recipe,
        arch=request.arch,
        pretrained=request.weights != NONE,
        devices=request.devices,
        folder=folder,
        progress=progress,
    )


def _working_folder(request: TrainingRequest, category: str, kind: Kind, inputs: tuple[str, ...]) -> Path:
    """The same folder for the same run, and another for any other, so that nothing foreign is resumed."""
    recipe, accelerator = request.recipe.model_dump(mode="json"), request.devices.accelerator
    identity = json.dumps([recipe, request.arch, kind, accelerator, *inputs], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    folder = request.artifacts / ".training" / f"{category}-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(
            f"The folder {folder} cannot be made ({error.strerror}). Give another with --artifacts."
        ) from error
    return folder


def _validation(figures: Figures | None) -> dict[str, float | None]:
    if figures is None:
        return {}
    return {"synthetic_image_auroc": figures.image_auroc, "synthetic_pixel_auroc": figures.pixel_auroc}
