"""Where the stuff of a synthetic defect comes from (seed, step 1.4): a texture folder, or procedural patterns.

The seed takes its textures from DTD; any folder of pictures will do, and without one `ProceduralTextures`
makes them up, so that nothing has to be downloaded. Both give a random, augmented square on `draw`, and the
same generator state gives the same bytes.
"""

import warnings
from pathlib import Path
from typing import Final, Protocol

import cv2
import numpy as np
from PIL import Image

from models.errors import DatasetError, ImageError
from models.images import FORMATS, decode, media_type
from training.arrays import Field, Rgb
from training.patterns import PATTERNS
from training.picture_files import SUFFIXES, is_picture

# Kept pictures are shrunk to this shorter side: as sharp as a 224 px draw needs, about 0.4 MB each.
CACHED_SIDE: Final = 320
CACHED_IMAGES: Final = 128
_QUARTERS: Final = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)


class Textures(Protocol):
    """A source of random texture squares."""

    def draw(self, rng: np.random.Generator, size: int) -> Rgb:
        """A texture, (size, size, 3) uint8 RGB, decided by `rng` alone."""
        ...


class FolderTextures:
    """Random crops of the pictures below a folder, decoded when first drawn; the latest stay in memory.

    Raises DatasetError if the folder is missing, holds no picture or one whose header cannot be read, and on
    `draw` if a picture is damaged further on.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise DatasetError(
                f"The texture folder {directory} does not exist. Give a folder of pictures (DTD's images, "
                "for instance), or none at all to use procedural textures."
            )
        self.paths = sorted(path for path in directory.rglob("*") if is_picture(path))
        if not self.paths:
            raise DatasetError(
                f"The texture folder {directory} holds no picture ({', '.join(sorted(SUFFIXES))}), nor do the "
                "folders below it. Give another folder, or none at all to use procedural textures."
            )
        for path in self.paths:
            _check_header(path)
        self._cache: dict[Path, Rgb] = {}

    def draw(self, rng: np.random.Generator, size: int) -> Rgb:
        """A crop of one of the pictures, turned and recoloured, (size, size, 3) uint8."""
        picture = self._read(self.paths[int(rng.integers(len(self.paths)))])
        return _recolour(_turn(_crop(picture, rng, size), rng), rng)

    def _read(self, path: Path) -> Rgb:
        picture = self._cache.pop(path, None)
        if picture is None:
            try:
                picture = _shrink(decode(path.read_bytes()))
            except (ImageError, OSError) as error:
                raise _unreadable(path, error) from error
        self._cache[path] = picture  # last in line: the first is the one unused for longest
        for unused in list(self._cache)[:-CACHED_IMAGES]:  # a list: other threads draw at the same time
            self._cache.pop(unused, None)
        return picture


class ProceduralTextures:
    """Patterns made up on the spot, in random colours: clouds, stripes, checks, blobs, cracks, speckle."""

    def draw(self, rng: np.random.Generator, size: int) -> Rgb:
        """A new pattern, (size, size, 3) uint8."""
        pattern = PATTERNS[int(rng.integers(len(PATTERNS)))]
        picture = _colour(pattern(rng, size), rng)
        return _turn(picture, rng)


def open_textures(directory: Path | None) -> FolderTextures | ProceduralTextures:
    """Those of a folder, or generated ones. DatasetError as `FolderTextures` says."""
    return ProceduralTextures() if directory is None else FolderTextures(directory)


def _check_header(path: Path) -> None:
    """What can be told without decoding: thousands of files take a second or two, and training takes hours."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels: `decode` has a limit of its own
            media_type(file.read(16))
            file.seek(0)
            Image.open(file, formats=FORMATS).close()
    except Exception as error:  # Pillow's plugins raise a dozen types on damaged files
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DatasetError:
    return DatasetError(f"The texture {path} cannot be read: {str(error).rstrip('.')}. Remove it from the folder.")


def _shrink(picture: Rgb) -> Rgb:
    scale = CACHED_SIDE / min(picture.shape[:2])
    if scale >= 1:
        return picture
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _crop(picture: Rgb, rng: np.random.Generator, size: int) -> Rgb:
    """A random square of 0.3 to 1 of the shorter side, resized to `size`."""
    height, width = picture.shape[:2]
    side = max(1, round(min(height, width) * rng.uniform(0.3, 1.0)))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    crop = picture[top : top + side, left : left + side]
    method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (size, size), interpolation=method), dtype=np.uint8)


def _turn(picture: Rgb, rng: np.random.Generator) -> Rgb:
    """One of the eight symmetries of the square."""
    quarter = _QUARTERS[int(rng.integers(4))]
    turned = picture if quarter is None else cv2.rotate(picture, quarter)
    return np.asarray(cv2.flip(turned, 1) if rng.random() < 0.5 else turned, dtype=np.uint8)


def _recolour(picture: Rgb, rng: np.random.Generator) -> Rgb:
    """Contrast and brightness of the whole, and a small gain of each channel, jittered."""
    gain = rng.uniform(0.6, 1.4) * rng.uniform(0.85, 1.15, 3)
    offset = 127.5 + rng.uniform(-40, 40)
    levels = np.arange(256)[:, None] - 127.5
    table = np.clip(np.rint(levels * gain + offset), 0, 255).astype(np.uint8)  # (256, 3)
    return np.asarray(cv2.LUT(picture, table[:, None, :]), dtype=np.uint8)


def _colour(field: Field, rng: np.random.Generator) -> Rgb:
    """A field in [0, 1] through a palette that runs between two to four random colours, vivid or greyish."""
    stops = rng.uniform(0, 255, (int(rng.integers(2, 5)), 3))
    stops += rng.uniform(0, 0.9) * (stops.mean(axis=1, keepdims=True) - stops)
    at = np.linspace(0, len(stops) - 1, 256)
    table = np.stack([np.interp(at, np.arange(len(stops)), stops[:, i]) for i in range(3)], axis=1)
    levels = np.clip(field * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(cv2.merge([levels] * 3), table.astype(np.uint8)[:, None, :]), dtype=np.uint8)
