"""A stored map -> a picture for people: heat, overlay or mask. Nothing here decides anything.

Colours are relative to the threshold, not to the map's own range: the threshold is the middle of the scale and
twice the threshold its end, so a good part looks calm and two pictures can be compared.
"""

import math
from functools import cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from models.preprocess import PreprocessConfig, covered_box, locate

Style = Literal["heat", "overlay", "mask"]

_OPAQUE = 0.7  # the most that an overlay hides of the picture
_BAND = 2**21  # pixels blended at a time, so that large pictures need no large intermediates
_LINE = 400  # a picture's longer edge for each pixel of an outline's width


def render(
    style: Style,
    score_map: NDArray[np.float32],
    threshold: float,
    preprocess: PreprocessConfig,
    *,
    size: tuple[int, int],
    image: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Draw a map (h', w') in the frame of its picture of `size` (height, width).

    heat: (h, w, 3) RGB, dark blue at 0, green at the threshold, red from twice the threshold. overlay: the same
    blended over `image` (h, w, 3) RGB, the more the higher the score, with outlines of what lies above the
    threshold. mask: (h, w), 255 above the threshold, else 0. Raises ValueError without the image it needs.
    """
    if style == "mask":
        return _above(score_map, threshold, preprocess, size).astype(np.uint8) * 255
    levels = _levels(locate(score_map, preprocess, size), threshold)
    if style == "heat":
        return _colours()[levels]
    if image is None or image.shape != (*size, 3):
        shape = None if image is None else image.shape
        raise ValueError(f"an overlay needs the picture, (h, w, 3) of size {size}, not {shape}")
    blended = _blend(image, levels)
    _outline(blended, _above(score_map, threshold, preprocess, size))
    return blended


def encode_png(array: NDArray[np.uint8]) -> bytes:
    """(h, w) grey or (h, w, 3) RGB uint8 -> the bytes of a PNG file."""
    pixels = array[:, :, ::-1] if array.ndim == 3 else array  # cv2 thinks in BGR
    _, png = cv2.imencode(".png", pixels)
    return png.tobytes()


def _levels(located: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """0 ... twice the threshold -> 0 ... 255."""
    scale = 127.5 / max(threshold, float(np.finfo(np.float32).tiny))
    levels: NDArray[np.float32] = np.rint(located * np.float32(scale))
    return np.clip(levels, 0, 255).astype(np.uint8)


@cache
def _colours() -> NDArray[np.uint8]:
    """(256, 3) RGB."""
    ramp = np.arange(256, dtype=np.uint8).reshape(-1, 1)
    bgr = cv2.applyColorMap(ramp, cv2.COLORMAP_TURBO)  # (256, 1, 3)
    return np.ascontiguousarray(bgr[:, 0, ::-1], np.uint8)


def _above(
    score_map: NDArray[np.float32], threshold: float, preprocess: PreprocessConfig, size: tuple[int, int]
) -> NDArray[np.bool_]:
    """(h, w): which of the inspected pixels lie above the threshold; some, if and only if a sample of the map does.

    A peak that is narrower than a pixel would fall between two of them: its own pixel is marked.
    """
    # Interpolation may round up; nothing between the samples is above the highest of them.
    located = np.minimum(locate(score_map, preprocess, size), score_map.max())
    limit = np.float64(threshold)  # not a float, which numpy would round to the map's float32
    above: NDArray[np.bool_] = located > limit
    x0, y0, x1, y1 = covered_box(preprocess, size)
    rows, columns = np.nonzero(score_map > limit)
    y = y0 + (rows + 0.5) / score_map.shape[0] * (y1 - y0)
    x = x0 + (columns + 0.5) / score_map.shape[1] * (x1 - x0)
    above[: math.floor(y0)] = above[math.ceil(y1) :] = False
    above[:, : math.floor(x0)] = above[:, math.ceil(x1) :] = False
    above[y.astype(int), x.astype(int)] = True
    return above


def _blend(image: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Nothing below half the threshold, where good parts lie; full strength from one and a half of it on.
    score = np.arange(256, dtype=np.float32) / 127.5  # in thresholds
    alpha = _OPAQUE * np.clip(score - 0.5, 0, 1)[:, None]  # (256, 1)
    tint = alpha * _colours()
    blended = np.empty_like(image)
    rows = max(1, _BAND // image.shape[1])
    for top in range(0, len(image), rows):
        band = slice(top, top + rows)
        blended[band] = np.rint(image[band] * (1 - alpha[levels[band]]) + tint[levels[band]]).astype(np.uint8)
    return blended


def _outline(image: NDArray[np.uint8], above: NDArray[np.bool_]) -> None:
    """Draw on `image`: a white line with a black rim, to be seen on any part."""
    contours, _ = cv2.findContours(above.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    width = max(1, round(max(image.shape[:2]) / _LINE))
    cv2.drawContours(image, contours, -1, (0, 0, 0), width + 2)
    cv2.drawContours(image, contours, -1, (255, 255, 255), width)
