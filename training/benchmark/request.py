"""What is asked of a benchmark, and which categories a folder has."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.backbone import Architecture
from models.device import Device
from models.errors import DatasetError
from training.benchmark.method import Method


@dataclass(frozen=True)
class BenchmarkRequest:
    """What a person asks for. `peer_python` is the interpreter that has anomalib, for peers."""

    data: Path
    categories: tuple[str, ...]
    methods: tuple[Method, ...]
    arch: Architecture
    weights: str
    textures: Path | None
    false_reject_rate: float
    device: Device
    output: Path
    peer_python: Path | None = None


def find_categories(data: Path, wished: Sequence[str]) -> tuple[str, ...]:
    """The wished categories, or all of `data` that have train/good. DatasetError if there are none."""
    if not data.is_dir():
        raise DatasetError(f"The data folder {data} does not exist. Give the folder that holds the categories.")
    there = sorted(path.name for path in data.iterdir() if (path / "train" / "good").is_dir())
    if not there:
        raise DatasetError(f"{data} holds no category: expected is {data}/CATEGORY/train/good/*.png, as in MVTec AD.")
    if unknown := [name for name in wished if name not in there]:
        raise DatasetError(f"There is no category '{unknown[0]}' in {data}: there are {', '.join(there)}.")
    return tuple(dict.fromkeys(wished)) or tuple(there)
