"""A cell: one method on one category, its figures or its error, in a JSON file of its own.

A cell's key is a hash of all that its figures depend on. A file that is damaged, failed or has another key counts as
not there, so the cell is measured (again); nothing else is ever repeated.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from models.backbone import Architecture
from models.device import Device
from models.durable import sync
from models.manifest import Kind


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CellRequest(_Record):
    """What to measure, for the process that does; paths are absolute."""

    data: Path
    category: str
    method: str
    key: str
    arch: Architecture
    weights: str
    textures: Path | None
    false_reject_rate: float
    device: Device
    output: Path
    peer_python: Path | None


class Figures(_Record):
    """What was measured. None: cannot be told, as without masks. Times in seconds or as named, sizes in bytes.

    `peak_bytes` is the process's largest resident memory until training ended, `device_bytes` the GPU's.
    `milliseconds` is the median over single pictures, from pixels in memory to a score.
    """

    image_auroc: float | None
    pixel_auroc: float | None
    aupro: float | None
    false_reject_rate: float | None
    miss_rate: float | None
    threshold: float
    threshold_rule: str
    training_seconds: float
    milliseconds: float
    artifact_bytes: int
    peak_bytes: int
    device_bytes: int


class Cell(_Record):
    """The result: `figures`, or `error` in the words for the person who can mend it."""

    category: str
    method: str
    key: str
    kind: Kind | None = None
    stages: tuple[str, ...] = ()
    device: str = ""
    threads: int = 0
    figures: Figures | None = None
    error: str | None = None

    @property
    def status(self) -> Literal["done", "failed"]:
        """Whether there are figures."""
        return "done" if self.figures is not None else "failed"


def cell_path(output: Path, category: str, method: str) -> Path:
    """Where a cell's file is."""
    return output / "cells" / category / f"{method}.json"


def read_cell(path: Path) -> Cell | None:
    """The cell in a file; None if there is none that can be read."""
    try:
        return Cell.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_cell(path: Path, cell: Cell) -> None:
    """Write a cell's file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}-{os.getpid()}")
    incoming.write_text(cell.model_dump_json(indent=1) + "\n", encoding="utf-8")
    sync(incoming)
    incoming.replace(path)


def key_of(inputs: Mapping[str, Any]) -> str:
    """16 hex digits for everything that figures depend on."""
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
