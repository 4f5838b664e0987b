"""A whole training run: from a folder of good pictures to an artifact (seed, steps 1 to 6).

read -> kind -> [jigsaw] -> [fusion] -> Gaussian -> threshold -> artifact. The two stages in brackets stay, go
or are chosen, as the recipe says. Nothing but the good training pictures is ever opened.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from models.artifact import load, save
from models.backbone import Architecture
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
from models.preprocess import Preprocess
from models.weights import NONE, load_weights
from training.batch_norm import estimate_batch_norm
from training.calibrate import image_scores, threshold
from training.choose import Figures
from training.datasets import check_depth, fingerprint, read_image, training_images
from training.fit import assign_folds
from training.foreground import decide_kind
from training.loop import Devices
from training.progress import Progress
from training.recipe import Recipe
from training.stages import run_stages
from training.synthetic import Tiles, make_tiles
from training.textures import FolderTextures, ProceduralTextures, Textures
from training.workshop import Workshop

_SMALLEST_EDGE = 32  # pixels; whatever is smaller was not taken by the camera of a line
_NAMED = 10  # unusable pictures in one message
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
    with _alone_in(folder):
        stages = run_stages(workshop, backbone, tiles, kind=kind, textures=textures)
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
        packages=_packages(),
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
    tiles, unusable = [], []
    with progress.step("reading images", len(paths)) as step:
        for path in paths:
            try:
                tiles.append(preprocess.resize(read_image(path, smallest=_SMALLEST_EDGE)))
            except DatasetError as error:
                unusable.append(str(error))
            step.advance()
    if unusable:
        more = f" (and {len(unusable) - _NAMED} more)" if len(unusable) > _NAMED else ""
        raise DatasetError(
            f"{len(unusable)} of {len(paths)} pictures cannot be used; mend or remove them: "
            + " | ".join(unusable[:_NAMED])
            + more
        )
    check_depth(paths)
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


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two equal runs at once would write each other's files; the second is refused, and a dead one holds nothing."""
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout as error:
        raise RecipeError(
            f"The same training is under way in another process (it holds {folder / 'lock'}). Wait for it."
        ) from error


def _packages() -> dict[str, str]:
    """Versions of what computes; one that is not installed under its usual name is left out."""
    versions = {}
    for name in _RECORDED_PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = package_version(name)
    return versions


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
    settings = [recipe, request.arch, request.weights == NONE, kind, accelerator, request.devices.count]
    identity = json.dumps([*settings, _packages(), *inputs], sort_keys=True)
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
