"""From a picture's bytes to what the network takes of it: the one way of training, evaluation, the command line and the
service, so that a picture has one score.

A JPEG is decoded no larger than it must be, where the artifact says so. What was decoded is therefore no measure of
the picture: its size comes with the tile, and the pixels in between are not given out.
"""

from dataclasses import dataclass
from typing import Final

from torch import Tensor

from models.errors import ImageTooSmall
from models.images import MAX_PIXELS, Decoded, decode, decode_reduced
from models.preprocess import Preprocess

SPARE: Final = 2
"""How many times larger than it will be a JPEG is decoded at least, so that it is resizing that makes the last step."""

SMALLEST: Final = 32
"""Pixels of a picture's shorter edge: whatever has fewer was not taken by the camera of a line."""


@dataclass(frozen=True)
class Taken:
    """`tile` (3, s, s) uint8, of edge `config.taken`; `size` (height, width) of the picture, where regions are told."""

    tile: Tensor
    size: tuple[int, int]


def take(data: bytes, preprocess: Preprocess, *, max_pixels: int = MAX_PIXELS) -> Taken:
    """One picture file, decoded and resized. Safe in any thread.

    Raises an ImageError, as `models.images.decode` does, and ImageTooSmall below `SMALLEST` pixels either way.
    """
    decoded = _decode(data, preprocess, max_pixels)
    height, width = decoded.size
    if min(height, width) < SMALLEST:
        raise ImageTooSmall(
            f"The picture is {width}x{height} pixels; at least {SMALLEST}x{SMALLEST} are wanted. Send what the camera "
            "took."
        )
    return Taken(preprocess.resize(decoded.rgb), decoded.size)


def _decode(data: bytes, preprocess: Preprocess, max_pixels: int) -> Decoded:
    if preprocess.config.reduced_jpeg:
        return decode_reduced(data, least=SPARE * preprocess.config.squashed, max_pixels=max_pixels)
    rgb = decode(data, max_pixels=max_pixels)
    return Decoded(rgb, (rgb.shape[0], rgb.shape[1]))
