"""Averages over categories, which are honest only about cells that there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from training.benchmark.cells import Cell
from training.benchmark.kinds import kind_of

Figure = Literal[
    "image_auroc",
    "pixel_auroc",
    "aupro",
    "false_reject_rate",
    "miss_rate",
    "training_seconds",
    "milliseconds",
    "artifact_bytes",
    "peak_bytes",
    "device_bytes",
]


@dataclass(frozen=True)
class Mean:
    """An average over `categories` of the `wanted` ones."""

    value: float
    categories: int
    wanted: int


def find(cells: Sequence[Cell], category: str, method: str) -> Cell | None:
    """The cell of a category and a method, if it was measured."""
    return next((cell for cell in cells if (cell.category, cell.method) == (category, method)), None)


def figure(cell: Cell | None, name: Figure) -> float | None:
    """One figure of a cell; None without a cell, without figures, or where it cannot be told."""
    return None if cell is None or cell.figures is None else getattr(cell.figures, name)


def mean(cells: Sequence[Cell], categories: Sequence[str], method: str, name: Figure) -> Mean | None:
    """The average over the categories where there is a figure; None if there is none."""
    values = [value for each in categories if (value := figure(find(cells, each, method), name)) is not None]
    return Mean(sum(values) / len(values), len(values), len(categories)) if values else None


def by_kind(categories: Sequence[str], cells: Sequence[Cell]) -> dict[str, tuple[str, ...]]:
    """Textures, objects, and those of which it is not known (yet), each in order; empty groups are left out."""
    groups: dict[str, list[str]] = {"texture": [], "object": [], "unknown": []}
    for category in categories:
        groups[kind_of(category, cells) or "unknown"].append(category)
    return {kind: tuple(names) for kind, names in groups.items() if names}
