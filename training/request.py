"""What a person asks of a training run, and what comes of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.backbone import Architecture
from models.manifest import Choice, Kind, ThresholdRecord
from training.loop import Devices
from training.recipe import Recipe


@dataclass(frozen=True)
class TrainingRequest:
    """What a person asks for. `textures` None: procedural ones. `ignore`: a PNG of what not to look at."""

    data: Path
    category: str | None
    recipe: Recipe
    arch: Architecture
    weights: str
    textures: Path | None
    kind: Literal["auto", "object", "texture"]
    devices: Devices
    artifacts: Path
    ignore: Path | None = None


@dataclass(frozen=True)
class TrainingResult:
    """What came of it; `seconds` are `Progress.times`, `warnings` for the person who trained."""

    artifact: Path
    category: str
    version: str
    kind: Kind
    threshold: ThresholdRecord
    choices: tuple[Choice, ...]
    validation: dict[str, float | None]
    seconds: dict[str, float]
    warnings: tuple[str, ...]
