"""Where a run keeps what it goes on from when it was killed: one folder for equal runs, and one run in it at a time."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

from filelock import FileLock, Timeout

from models.errors import RecipeError
from models.manifest import Kind
from models.weights import NONE
from training.request import TrainingRequest

SCRATCH = ".training"  # below the artifacts: what runs work with
RECORDED_PACKAGES = ("jigsight", "numpy", "opencv-python-headless", "pillow", "torch", "torchvision")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Two equal runs at once would write each other's files; the second is refused, and a dead one holds nothing.

    Raises RecipeError, also where the folder cannot be made.
    """
    _make(folder)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout as error:
        raise RecipeError(
            f"The same training is under way in another process (it holds {folder / 'lock'}). Wait for it."
        ) from error


def packages() -> dict[str, str]:
    """Versions of what computes; one that is not installed under its usual name is left out."""
    versions = {}
    for name in RECORDED_PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = package_version(name)
    return versions


def working_folder(request: TrainingRequest, category: str, kind: Kind, inputs: tuple[str, ...]) -> Path:
    """The same folder for the same run, and another for any other, so that nothing foreign is resumed."""
    recipe, accelerator = request.recipe.model_dump(mode="json"), request.devices.accelerator
    settings = [recipe, request.arch, request.weights == NONE, kind, accelerator, request.devices.count]
    identity = json.dumps([*settings, packages(), *inputs], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    folder = request.artifacts / SCRATCH / f"{category}-{digest}"
    _make(folder)
    return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(
            f"The folder {folder} cannot be made ({error.strerror}). Give another with --artifacts."
        ) from error
