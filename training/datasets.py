"""Pictures on disk: MVTec AD's layout, and plain folders of good pictures.

    DIR/CATEGORY/train/good/*                     good pictures to train on, or DIR/CATEGORY/* or DIR/* directly
    DIR/CATEGORY/test/<defect or good>/*          pictures to test on; or good ones alone, in DIR/CATEGORY/* or DIR/*
    DIR/CATEGORY/ground_truth/<defect>/*_mask.*   where the defects of test/<defect>/* are

Everything that is wrong with a folder is a DatasetError that names it and says what to do. Only `test_samples`
looks below test/ and ground_truth/; whatever is not a picture by its suffix, and hidden files, are left alone.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from models.errors import DatasetError, ImageError
from models.ignored import painted
from models.images import decode, significant_bits
from training.arrays import Mask, Rgb
from training.picture_files import SUFFIXES, is_picture

GOOD: Final = "good"
_DEPTH_LOOKED_AT = 20  # pictures
_SHALLOW_BITS = 12
_SHAPE_TOLERANCE = 0.01  # by which an ignore mask's width to height may differ from its pictures'
_LAYOUT = "test/good/* and test/<defect>/*, with masks in ground_truth/<defect>/<name>_mask.png"


@dataclass(frozen=True)
class TestSample:
    """A test picture, its kind of defect (or "good"), and the file that says where the defect is, if any."""

    __test__: ClassVar = False  # nothing for pytest to collect

    path: Path
    defect: str
    mask: Path | None

    @property
    def is_good(self) -> bool:
        """Whether the part is free of defects."""
        return self.defect == GOOD


def training_images(data: Path, category: str | None) -> list[Path]:
    """The good pictures to train on, in natural order (2 before 10): at least two, else DatasetError."""
    folder = _category_folder(data, category)
    if (folder / "train").is_dir():
        folder = folder / "train" / GOOD
        if not folder.is_dir():
            raise DatasetError(f"{folder} does not exist. Put the pictures of good parts there.")
    paths = _pictures(folder)
    if not paths:
        raise DatasetError(f"{folder} holds no pictures{_instead(folder)}. {_wanted(folder)}")
    if len(paths) == 1:
        raise DatasetError(
            f"{folder} holds one picture, {paths[0].name}. What good parts have in common, and how far they differ, "
            "shows in two at the very least; take 50 or more for thresholds that can be trusted."
        )
    return paths


def added_images(folder: Path) -> list[Path]:
    """The pictures that lie in a folder, one at least, in natural order."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is a file, not a folder." if folder.exists() else f"There is no folder {folder}.")
    if not (paths := _pictures(folder)):
        good = folder / "train" / GOOD
        what = f"Give its good pictures: {good}." if good.is_dir() else _wanted(folder)
        raise DatasetError(f"{folder} holds no pictures to add{_instead(folder)}. {what}")
    return paths


def test_samples(data: Path, category: str | None) -> list[TestSample]:
    """The test pictures with their truth: good ones first, then a defect type at a time, in natural order.

    In a folder with neither test/ nor train/, the pictures that lie in it are all of good parts. Otherwise, either all
    pictures of a defect type have a mask or none has (then it does not count for pixel figures).
    """
    folder = _category_folder(data, category)
    test = folder / "test"
    if not test.is_dir():
        loose = [] if (folder / "train").is_dir() else _pictures(folder)
        if not loose:
            what = "has no test pictures" if (folder / "train").is_dir() else f"holds no pictures{_instead(folder)}"
            raise DatasetError(
                f"{folder} {what}. Expected is {_LAYOUT}; or pictures of good parts directly in a "
                "folder without train/."
            )
        return [TestSample(path, GOOD, None) for path in loose]
    if loose := _pictures(test):
        raise DatasetError(f"{loose[0]} and {len(loose) - 1} more lie directly in {test}. Expected is {_LAYOUT}.")
    defects = sorted(_folders(test), key=lambda name: (name != GOOD, _natural(name)))
    for name in _folders(folder / "ground_truth"):
        if name not in defects and _pictures(folder / "ground_truth" / name):
            raise DatasetError(f"{folder / 'ground_truth' / name} holds masks, but there is no {test / name}.")
    samples = [sample for defect in defects for sample in _samples(folder, defect)]
    if not samples:
        raise DatasetError(f"{test} holds no pictures. Expected is {_LAYOUT}.")
    return samples


# pytest would take the imported function for a test of its own.
test_samples.__test__ = False  # type: ignore[attr-defined]


def read_image(path: Path, *, smallest: int = 1) -> Rgb:
    """Decode a picture, (h, w, 3) uint8 RGB, of at least `smallest` pixels either way.

    DatasetError naming the file if that cannot be done.
    """
    try:
        image = decode(_content(path))
    except ImageError as error:
        raise DatasetError(f"{path}: {error}") from error
    if min(image.shape[:2]) < smallest:
        raise DatasetError(
            f"{path}: it is {image.shape[1]}x{image.shape[0]} pixels; at least {smallest}x{smallest} are wanted."
        )
    return image


def read_mask(path: Path, *, size: tuple[int, int] | None = None) -> Mask:
    """(h, w) bool, true on the defect: brighter than half of the mask's own brightest value (255, or 1).

    DatasetError if it marks nothing, or is not of `size` (height, width), its picture's.
    """
    grey = read_image(path).max(axis=2)
    if size is not None and grey.shape != size:
        raise DatasetError(
            f"{path} is {grey.shape[1]}x{grey.shape[0]} pixels, but its picture is {size[1]}x{size[0]}. "
            "A mask needs the size of its picture."
        )
    brightest = int(grey.max())
    if brightest == 0:
        raise DatasetError(f"{path} marks nothing: all of it is black. Mark the defect in white.")
    mask: Mask = grey > brightest / 2
    return mask


def read_ignore_mask(path: Path, *, size: tuple[int, int] | None = None) -> Mask:
    """(h, w) bool, true where the PNG was painted, which is to be ignored; of any size, but of its pictures' shape.

    DatasetError if it is no PNG that can be read, if nothing or everything is painted, or if its width to its height
    is more than 1 % off from `size` (height, width), a picture's.
    """
    try:
        mask = painted(_content(path))
    except ImageError as error:
        raise DatasetError(f"{path}: {error}") from error
    if mask.all() or not mask.any():
        how = "everything" if mask.any() else "nothing"
        raise DatasetError(
            f"{path}: {how} is painted in it. Paint what is to be ignored, in any colour, and leave the rest black "
            "or transparent."
        )
    height, width = mask.shape
    if size is not None and abs(width * size[0] / (height * size[1]) - 1) > _SHAPE_TOLERANCE:
        raise DatasetError(
            f"{path} is {width}x{height} pixels, of another shape than the pictures, which are {size[1]}x{size[0]}: "
            "what it covers would be a guess. Paint it over one of the pictures."
        )
    return mask


def check_depth(paths: Sequence[Path]) -> None:
    """Refuse 16-bit pictures of a camera with fewer bits: only the high byte is used, so they would be black.

    Looks at up to 20 of them. DatasetError if all are 16-bit and none uses more than 12 of them.
    """
    looked_at = [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), _DEPTH_LOOKED_AT)).astype(int)]
    used = [significant_bits(path.read_bytes()) for path in looked_at]
    known = [bits for bits in used if bits is not None]
    if len(known) == len(used) and max(known) <= _SHALLOW_BITS:
        raise DatasetError(
            f"The pictures in {looked_at[0].parent} are 16-bit, but use {max(known)} bits at most: their upper byte, "
            f"which is what is inspected, is nearly empty. Let the camera write 8 bits, or shift them left by "
            f"{16 - max(known)} bits; in production too."
        )


def fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 over names and bytes, whatever the order and whatever folder the files lie in."""
    entries = []
    for path in paths:
        with path.open("rb") as file:
            entries.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
    # A name cannot hold the separators, so no two sets of files spell the same text.
    text = "".join(f"{name}/{digest}\n" for name, digest in sorted(entries))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _category_folder(data: Path, category: str | None) -> Path:
    if not data.is_dir():
        what = "is a file, not a folder" if data.exists() else "does not exist"
        raise DatasetError(f"The data folder {data} {what}. Give the folder that holds the categories.")
    if category is None:
        return data
    folder = data / category
    if folder.is_dir():
        return folder
    there = ", ".join(sorted(_folders(data), key=_natural)[:20])
    if data.resolve().name == category or _pictures(data) or not there:
        return data  # the category's own folder was given, or one of pictures that need a name, or an empty one
    raise DatasetError(f"There is no category '{category}' in {data}: there are {there}.")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = "it is a folder, and a picture is wanted" if path.is_dir() else error.strerror
        raise DatasetError(f"{path} cannot be read: {reason}.") from error


def _samples(folder: Path, defect: str) -> list[TestSample]:
    paths = _pictures(folder / "test" / defect)
    if defect == GOOD:
        return [TestSample(path, GOOD, None) for path in paths]
    masks = {mask.stem: mask for mask in _pictures(folder / "ground_truth" / defect)}
    wanted = {f"{path.stem}_mask" for path in paths}
    for stem in masks.keys() - wanted:
        name = stem.removesuffix("_mask")
        raise DatasetError(
            f"{masks[stem]} is a mask without a picture: there is no {folder / 'test' / defect / name}.*"
        )
    for path in paths:
        if masks and f"{path.stem}_mask" not in masks:
            raise DatasetError(
                f"{path} has no mask, though {len(masks)} of {len(paths)} pictures of '{defect}' have one. "
                f"Add ground_truth/{defect}/{path.stem}_mask.png, or remove the others."
            )
    return [TestSample(path, defect, masks.get(f"{path.stem}_mask")) for path in paths]


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(filter(is_picture, folder.iterdir()), key=lambda path: _natural(path.name))


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _natural(name: str) -> tuple[list[Any], str]:
    """Digits by their value; the name itself decides between 1 and 01."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _instead(folder: Path) -> str:
    others = sorted({path.suffix.lower() or "no suffix" for path in folder.iterdir() if path.is_file()})
    return f" (only files with {', '.join(others[:5])})" if others else ""


def _wanted(folder: Path) -> str:
    inside = ", ".join(sorted(_folders(folder), key=_natural)[:20])
    hint = f" It holds folders: {inside}; is one of them the category?" if inside else ""
    return f"Read are {', '.join(sorted(SUFFIXES))}, in CATEGORY/train/good or directly in the folder.{hint}"
