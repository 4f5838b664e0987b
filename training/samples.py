"""Procedural sample categories: parts to try JigSight on when there are none of one's own at hand.

`write_category` writes one in the layout of MVTec AD. Each picture has a generator of its own, made from the
seed and the picture's name, so more pictures never change the ones that were there already, and the same seed
gives the same bytes.
"""

import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

import cv2
import numpy as np

from models.errors import DatasetError
from training.arrays import Field, Mask, Rgb
from training.sample_parts import cloth, cloth_defects, flange, flange_defects
from training.sample_parts.camera import Camera

Piece = TypeVar("Piece")

OVERSAMPLING: Final = 2  # scenes are drawn this much larger than the picture: smooth edges, fine grain
SMALLEST: Final = 64
MARKED: Final = 0.3  # share of a pixel that must be damaged for the mask to mark it


@dataclass(frozen=True)
class SampleCategory(Generic[Piece]):
    """A kind of part that can be rendered, faultless or with one of its defects."""

    name: str
    kind: Literal["object", "texture"]
    title: str
    build: Callable[[np.random.Generator, int], Piece]
    damage: Mapping[str, Callable[[Piece, np.random.Generator], Mask]]
    shade: Callable[[Piece, np.random.Generator], Field]
    camera: Camera

    @property
    def defects(self) -> tuple[str, ...]:
        """The names of what can be wrong with it."""
        return tuple(self.damage)

    def render(self, rng: np.random.Generator, size: int, defect: str | None = None) -> tuple[Rgb, Mask]:
        """A picture (size, size, 3) uint8 of a new part and its defect's mask (size, size) bool, empty if good.

        Raises DatasetError for a defect that the category does not have and for a size below 64 pixels.
        """
        if size < SMALLEST:
            raise DatasetError(f"A sample picture of {size} pixels shows no defect: ask for {SMALLEST} or more.")
        if defect is not None and defect not in self.damage:
            raise DatasetError(f"{self.name} has no defect {defect!r}, only {', '.join(self.defects)}.")
        piece = self.build(rng, size * OVERSAMPLING)
        mask = np.zeros((size, size), dtype=np.bool_)
        if defect is not None:
            damaged = self.damage[defect](piece, rng).astype(np.float32)
            mask = np.asarray(cv2.resize(damaged, (size, size), interpolation=cv2.INTER_AREA) > MARKED)
        return self.camera.develop(self.shade(piece, rng), size, rng), mask


CATEGORIES: Final[dict[str, SampleCategory[Any]]] = {
    "flange": SampleCategory(
        name="flange",
        kind="object",
        title="stamped steel flanges on a conveyor belt",
        build=flange.build,
        damage=flange_defects.DEFECTS,
        shade=flange.shade,
        camera=flange.CAMERA,
    ),
    "cloth": SampleCategory(
        name="cloth",
        kind="texture",
        title="plain-woven linen on an inspection table",
        build=cloth.build,
        damage=cloth_defects.DEFECTS,
        shade=cloth.shade,
        camera=cloth.CAMERA,
    ),
}


def write_category(
    directory: Path,
    category: str,
    *,
    train: int = 100,
    test_good: int = 20,
    test_defective: int = 5,
    size: int = 256,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `directory/category` as MVTec AD does, and return that folder.

    `train` and `test_good` good pictures and `test_defective` of each defect, as PNG, masks in
    `ground_truth`. The folder appears when it is complete, not before. `progress` is told the number of
    pictures done and in all. Raises DatasetError for an unknown category and if the folder exists already.
    """
    if category not in CATEGORIES:
        raise DatasetError(f"There is no sample category {category!r}, only {', '.join(CATEGORIES)}.")
    target = directory / category
    if target.exists():
        raise DatasetError(f"{target} exists already. Remove it, or write the samples somewhere else.")
    partial = directory / f".{category}.partial"
    if partial.exists():  # an earlier run was stopped
        shutil.rmtree(partial)
    sample = CATEGORIES[category]
    orders = list(_orders(sample, train=train, test_good=test_good, test_defective=test_defective))

    def write(order: tuple[str, str | None, str]) -> None:
        folder, defect, name = order
        rng = np.random.default_rng([seed, zlib.crc32(f"{category}/{folder}/{name}".encode())])
        rgb, mask = sample.render(rng, size, defect)
        _write_png(partial / folder / f"{name}.png", rgb[:, :, ::-1])
        if defect is not None:
            _write_png(partial / "ground_truth" / defect / f"{name}_mask.png", mask.astype(np.uint8) * 255)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(write, orders), start=1):
            if progress is not None:
                progress(done, len(orders))
    partial.rename(target)
    return target


def _orders(
    sample: SampleCategory[Any], *, train: int, test_good: int, test_defective: int
) -> Iterator[tuple[str, str | None, str]]:
    """Folder, defect and name of each picture to be written."""
    wanted: list[tuple[str, str | None, int]] = [("train/good", None, train), ("test/good", None, test_good)]
    wanted += [(f"test/{defect}", defect, test_defective) for defect in sample.defects]
    for folder, defect, count in wanted:
        for index in range(count):
            yield folder, defect, f"{index:03d}"


def _write_png(path: Path, pixels: Rgb) -> None:
    """`pixels` as OpenCV has them: (h, w, 3) blue first, or (h, w)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(".png", pixels)
    path.write_bytes(encoded.tobytes())
