"""An artifact's scorer and threshold anew, from more good pictures; everything that was learnt or chosen stays."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from models.artifact import Artifact, load
from models.backbone import Backbone
from models.destination import check_folder
from models.detector import DetectorConfig
from models.errors import ArtifactError, DatasetError, DeviceError, RecipeError
from models.manifest import DatasetRecord
from models.memory_bank import MemoryBankConfig
from models.precision import name_of, pick_precision
from training.datasets import added_images, check_enough, too_few, training_images
from training.look_alikes import look_alikes, twins
from training.loop import Devices
from training.outcome import conclude
from training.picture_files import fingerprint
from training.pictures import Pictures
from training.progress import Progress
from training.recipe import Recipe
from training.request import TrainingResult
from training.suspects import suspects
from training.synthetic import Tiles
from training.working_folder import SCRATCH, alone_in, packages
from training.workshop import Workshop


def refit_category(
    path: Path,
    *,
    data: Path,
    category: str | None,
    added: Sequence[Path],
    false_reject_rate: float | None,
    devices: Devices,
    artifacts: Path,
    progress: Progress,
) -> TrainingResult:
    """Write a new artifact beside the one at `path`, fitted to the good pictures in `data` and the folders `added`.

    Raises JigSightError with what to do.
    """
    artifact = load(path)
    old, manifest = artifact.detector, artifact.manifest
    name = _same_category(artifact, category)
    check_folder(artifacts / name, option="--artifacts")
    recipe = _recipe(artifact, false_reject_rate)
    files = [*training_images(data, name), *chain.from_iterable(map(added_images, added))]
    check_enough(files)
    workshop = Workshop(
        recipe=recipe,
        arch=manifest.detector.arch,
        pretrained=True,
        devices=devices,
        folder=artifacts / SCRATCH / f"{manifest.category}-refit-{artifact.version}",
        progress=progress,
    )
    if change := _other_precision(artifact, workshop):
        progress.say(change)
    pictures = Pictures(files, workshop.folder, progress)
    images = pictures.read(old.preprocess)
    check_enough(pictures.paths)  # without copies
    config = _config(artifact, workshop, len(images))
    assert isinstance(old.backbone, Backbone), "an artifact that was not made ready can be assembled anew"
    detector = workshop.assemble(config, old.backbone, old.fusion)
    detector.smoothing.load_state_dict(old.smoothing.state_dict())
    with alone_in(workshop.folder):
        tiles = Tiles.without_foregrounds(images)
        groups = look_alikes(tiles.batches(), detector.smoothing.keep)
        record, scores, warning = workshop.complete(detector, tiles, groups=groups)
    refitted = {
        "detector": config,
        "threshold": record,
        "dataset": DatasetRecord(images=len(images), fingerprint=fingerprint(files)),
        "refitted_from": artifact.version,
        "recipe": recipe.model_dump(mode="json"),
        "packages": packages(),
    }
    manifest = manifest.model_copy(update=refitted)
    odd = (suspects(scores, pictures.paths, record), pictures.copies, twins(groups, pictures.paths))
    warnings = (warning, *odd, too_few(int(groups.max()) + 1), _fewer(artifact, len(images)))
    return conclude(workshop, detector, manifest, scores, artifacts=artifacts, warnings=warnings)


def _same_category(artifact: Artifact, wished: str | None) -> str:
    """The artifact's category, which is the only one that it may be fitted to."""
    category = artifact.manifest.category
    if wished not in (None, category):
        raise DatasetError(
            f"This artifact is of {category}; fitted to {wished}, it would judge one by the other. "
            "Train that category instead."
        )
    return category


def _recipe(artifact: Artifact, false_reject_rate: float | None) -> Recipe:
    """The recipe that the artifact was made by. ArtifactError where this JigSight does not know it any more."""
    try:
        recipe = Recipe.model_validate(artifact.manifest.recipe)
    except ValueError as error:
        raise ArtifactError(f"{artifact.path}: its recipe cannot be used again ({error}). Train it anew.") from error
    # A recipe that is silent means what is new now, and not what this artifact was made with.
    # But for the normalisation: a recipe says what weights are for, an artifact what they were made to be for.
    given = recipe.preprocess
    said = {"align": None, "mean": given.mean, "std": given.std}
    made_with = artifact.manifest.detector.preprocess.model_copy(update=said)
    recipe = recipe.model_copy(update={"preprocess": made_with})
    if false_reject_rate is None:
        return recipe
    if recipe.calibration.rule == "train_max":
        raise RecipeError("This artifact's rule, train_max, has no false-reject rate. Leave --false-reject-rate out.")
    calibration = recipe.calibration.model_copy(update={"false_reject_rate": false_reject_rate})
    return recipe.model_copy(update={"calibration": calibration})


def _config(artifact: Artifact, workshop: Workshop, images: int) -> DetectorConfig:
    """The detector's shape; a memory bank's size follows from the number of pictures."""
    config = artifact.manifest.detector
    scorer = workshop.fitter.first(images) if isinstance(config.scorer, MemoryBankConfig) else config.scorer
    return config.model_copy(update={"scorer": scorer})


def _other_precision(artifact: Artifact, workshop: Workshop) -> str | None:
    """What to say where the new artifact is fitted to features of another precision than the old one was."""
    before = artifact.manifest.precision or "float32"  # of what says nothing, from before there was a choice
    now = name_of(workshop.dtype)
    if now == before:
        return None
    try:
        pick_precision(before, workshop.device)
    except DeviceError:
        how = f"the {workshop.device.type} cannot compute in {before}"
    else:
        how = f"--precision {before} keeps what it was"
    return f"precision: {now} instead of the artifact's {before}; {how}"


def _fewer(artifact: Artifact, images: int) -> str | None:
    before = artifact.manifest.dataset.images
    if images >= before:
        return None
    return f"{images} good images are fewer than the {before} that it was made from: give the old ones too, with --data"
