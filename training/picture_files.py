"""Files of pictures and masks: which are one, what they hold, and what tells them from others.

Everything that is wrong with a file is a DatasetError that names it and says what to do. Where files lie is
`training.datasets`.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from models.errors import DatasetError, ImageError
from models.ignored import painted
from models.images import decode, significant_bits
from models.preprocess import Preprocess
from models.taken import Taken, take
from training.arrays import Mask, Rgb

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
Read = TypeVar("Read")

_DEPTH_LOOKED_AT = 20  # pictures
_SHALLOW_BITS = 12
_SHAPE_TOLERANCE = 0.01  # by which an ignore mask's width to height may differ from its pictures'


def is_picture(path: Path) -> bool:
    """Whether a file is to be read as a picture: by its suffix, hidden ones (macOS's `._a.png`) not among them.

    What it holds is not looked at.
    """
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def read_image(path: Path) -> Rgb:
    """Decode a whole picture, (h, w, 3) uint8 RGB. DatasetError naming the file if that cannot be done."""
    return _named(path, decode)


def read_taken(path: Path, preprocess: Preprocess) -> Taken:
    """A picture as the network takes it, with its own size. DatasetError naming the file if that cannot be done."""
    return _named(path, partial(take, preprocess=preprocess))


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
    mask = _named(path, painted)
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


def _named(path: Path, read: Callable[[bytes], Read]) -> Read:
    """What `read` makes of a file, or a DatasetError that names it."""
    try:
        return read(_content(path))
    except ImageError as error:
        raise DatasetError(f"{path}: {error}") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = "it is a folder, and a picture is wanted" if path.is_dir() else error.strerror
        raise DatasetError(f"{path} cannot be read: {reason}.") from error
