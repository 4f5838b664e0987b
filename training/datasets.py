"""Where pictures lie: MVTec AD's layout, and plain folders of good pictures.

    DIR/CATEGORY/train/good/*                     good pictures to train on, or DIR/CATEGORY/* or DIR/* directly
    DIR/CATEGORY/test/<defect or good>/*          pictures to test on; or good ones alone, in DIR/CATEGORY/* or DIR/*
    DIR/CATEGORY/ground_truth/<defect>/*_mask.*   where the defects of test/<defect>/* are

Everything that is wrong with a folder is a DatasetError that names it and says what to do. Only `test_samples`
looks below test/ and ground_truth/; whatever is not a picture by its suffix, and hidden files, are left alone. No
picture is opened here (`training.picture_files`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from models.errors import DatasetError
from training.picture_files import SUFFIXES, is_picture

GOOD: Final = "good"
FEWEST: Final = 8  # good pictures; what is fitted to fewer lets defects pass (docs/method.md)
ENOUGH: Final = 50
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
    """The good pictures to train on, in natural order (2 before 10): one at least, else DatasetError."""
    folder = _category_folder(data, category)
    if (folder / "train").is_dir():
        folder = folder / "train" / GOOD
        if not folder.is_dir():
            raise DatasetError(f"{folder} does not exist. Put the pictures of good parts there.")
    paths = _pictures(folder)
    if not paths:
        raise DatasetError(f"{folder} holds no pictures{_instead(folder)}. {_wanted(folder)}")
    return paths


def check_enough(paths: Sequence[Path]) -> None:
    """Refuse to fit anything to fewer than `FEWEST` good pictures. Raises DatasetError."""
    if len(paths) < FEWEST:
        raise DatasetError(
            f"{len(paths)} different pictures of good parts are too few (the first is {paths[0]}): {FEWEST} are the "
            f"least, {ENOUGH} or more are wanted. A detector that knows so few parts fails good ones and lets defects "
            "pass."
        )


def too_few(images: int) -> str | None:
    """A warning where so many good pictures are fewer than `ENOUGH`."""
    if images >= ENOUGH:
        return None
    return (
        f"{images} good images are few: how far good parts differ is hardly known, so defects may pass. Take {ENOUGH} "
        "or more, and let `jigsight evaluate` measure what is missed on defective parts"
    )


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
