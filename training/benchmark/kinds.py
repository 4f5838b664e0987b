"""Which categories are textures: MVTec AD's by name, others by what training finds."""

from collections.abc import Iterable
from typing import Final, Literal

from models.manifest import Kind
from training.benchmark.cells import Cell

TEXTURES: Final = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS: Final = (
    "bottle",
    "cable",
    "capsule",
    "hazelnut",
    "metal_nut",
    "pill",
    "screw",
    "toothbrush",
    "transistor",
    "zipper",
)

MVTEC: Final = (*TEXTURES, *OBJECTS)


def known_kind(category: str) -> Literal["auto", "object", "texture"]:
    """What MVTec AD's own categories are; `auto` for any other."""
    if category in TEXTURES:
        return "texture"
    return "object" if category in OBJECTS else "auto"


def kind_of(category: str, cells: Iterable[Cell]) -> Kind | None:
    """By name, or as the first of its cells that knows; None if none does."""
    known = known_kind(category)
    if known != "auto":
        return known
    return next((cell.kind for cell in cells if cell.category == category and cell.kind is not None), None)
