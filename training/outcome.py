"""The end of a run: the artifact is written and read once more, the folder to resume from goes, the result is told."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from models.artifact import load, save
from models.detector import Detector
from models.manifest import Manifest
from models.precision import name_of
from training.record import write_record
from training.request import TrainingResult
from training.workshop import Workshop


def conclude(
    workshop: Workshop,
    detector: Detector,
    manifest: Manifest,
    scores: Tensor,
    *,
    artifacts: Path,
    warnings: Iterable[str | None],
) -> TrainingResult:
    """Write `artifacts/CATEGORY/VERSION.safetensors` and its record; remove the workshop's folder, as all is done.

    `scores` (n,) are the good images' out of sample. A warning that is None is none.
    """
    manifest = manifest.model_copy(update={"precision": name_of(workshop.dtype)})
    artifact = load(save(detector, manifest, scores, folder=artifacts))  # prove that what will be served can be read
    seconds = workshop.progress.times()
    unrecorded = write_record(artifact, seconds)
    shutil.rmtree(workshop.folder)
    return TrainingResult(
        artifact=artifact.path,
        category=manifest.category,
        version=artifact.version,
        kind=manifest.kind,
        threshold=manifest.threshold,
        choices=manifest.choices,
        validation=manifest.validation,
        seconds=seconds,
        warnings=tuple(text for text in (*warnings, unrecorded) if text),
    )
