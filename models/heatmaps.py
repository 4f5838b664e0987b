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
from models.verdict import REFINEMENT, failing_cells, reach

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
    pixel_threshold: float | None = None,
) -> NDArray[np.uint8]:
    """Draw a map (h', w') in the frame of its picture of `size` (height, width).

    heat: (h, w, 3) RGB, dark blue at 0, green at the threshold, red from twice the threshold. overlay: the same
    blended over `image` (h, w, 3) RGB, the more the higher the score, with outlines of the failing regions. mask:
    (h, w), 255 in the failing regions, else 0. Regions are those of `models.verdict.regions`, which says what
    `pixel_threshold` is. Raises ValueError without the image it needs.
    """
    if style == "mask":
        return (
            _failing(score_map, threshold, preprocess, size=size, pixel_threshold=pixel_threshold).astype(np.uint8)
            * 255
        )
    levels = _levels(locate(score_map, preprocess, size), threshold)
    if style == "heat":
        return _colours()[levels]
    if image is None or image.shape != (*size, 3):
        shape = None if image is None else image.shape
        raise ValueError(f"an overlay needs the picture, (h, w, 3) of size {size}, not {shape}")
    blended = _blend(image, levels)
    _outline(blended, _failing(score_map, threshold, preprocess, size=size, pixel_threshold=pixel_threshold))
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


def _failing(
    score_map: NDArray[np.float32],
    threshold: float,
    preprocess: PreprocessConfig,
    *,
    size: tuple[int, int],
    pixel_threshold: float | None,
) -> NDArray[np.bool_]:
    """(h, w): which of the inspected pixels lie in a failing region; some, if and only if there is one.

    A peak that is narrower than a pixel would fall between two of them: its own pixel is marked.
    """
    limit = np.float64(reach(threshold, pixel_threshold))  # not a float, which numpy would round to the map's float32
    cells = failing_cells(score_map, threshold, pixel_threshold=pixel_threshold)
    # Interpolation may round up; nothing between the samples is above the highest of them.
    located = np.minimum(locate(score_map, preprocess, size), score_map.max())
    x0, y0, x1, y1 = covered_box(preprocess, size)
    failing: NDArray[np.bool_] = located > limit
    failing &= _at_pixels(cells, (x0, y0, x1, y1), size)
    middle = slice(REFINEMENT // 2, None, REFINEMENT)
    rows, columns = np.nonzero(cells[middle, middle])
    y = y0 + (rows + 0.5) / score_map.shape[0] * (y1 - y0)
    x = x0 + (columns + 0.5) / score_map.shape[1] * (x1 - x0)
    failing[: math.floor(y0)] = failing[math.ceil(y1) :] = False
    failing[:, : math.floor(x0)] = failing[:, math.ceil(x1) :] = False
    failing[y.astype(int), x.astype(int)] = True
    return failing


def _at_pixels(
    cells: NDArray[np.bool_], box: tuple[float, float, float, float], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """(h, w): whether a pixel lies in one of these cells, which cover `box`, or beside one.

    Beside, since a cell stands for its centre alone, and a contour runs between centres; two regions are further
    apart than that.
    """
    near = cv2.dilate(cells.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    x0, y0, x1, y1 = box
    rows = (np.arange(size[0]) + 0.5 - y0) / (y1 - y0) * near.shape[0]
    columns = (np.arange(size[1]) + 0.5 - x0) / (x1 - x0) * near.shape[1]
    inside = np.ix_(np.clip(rows.astype(int), 0, near.shape[0] - 1), np.clip(columns.astype(int), 0, near.shape[1] - 1))
    return near[inside]


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
