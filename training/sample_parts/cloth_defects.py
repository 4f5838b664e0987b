"""What goes wrong with woven cloth: broken thread, cut, foreign fibre, hole, stain.

Each function alters a piece of cloth before it is woven and lit, so that yarns end, bend and throw shadows, and
returns where the damage is, (s, s) bool at the cloth's own resolution.
"""

import math
from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from training.arrays import Field, Mask
from training.noise import fractal_noise, smooth_noise
from training.sample_parts.cloth import WARP, WEFT, Cloth

FIBRES: Final = ((0.030, 0.045, 0.115), (0.16, 0.022, 0.020), (0.020, 0.020, 0.022), (0.022, 0.085, 0.050))
STAIN: Final = (0.34, 0.255, 0.165)  # what is left of the yarns' colour where it is strongest


def broken_thread(cloth: Cloth, rng: np.random.Generator) -> Mask:
    """One or two yarns gone over a stretch; what crossed them floats, the broken ends stick out."""
    warp = rng.random() < 0.5
    across, along = (cloth.x, cloth.y) if warp else (cloth.y, cloth.x)
    row, column = _place(cloth, rng, margin=0.25)
    first, middle = np.floor(across[row, column]), float(along[row, column])
    count, half = int(rng.integers(1, 3)), float(rng.uniform(4.0, 6.5))
    index = np.floor(across)
    uneven = np.float32(0.4) * smooth_noise(rng, across.shape, cells=30)
    stretch = np.abs(along - np.float32(middle) + uneven) < half
    gone = (index >= first) & (index < first + count) & stretch
    (cloth.warp_gone if warp else cloth.weft_gone)[gone] = True
    cloth.lift += np.float32(-0.10) * cv2.GaussianBlur(gone.astype(np.float32), (0, 0), cloth.spacing * 0.4)
    mask = gone
    for end in (-half, half):
        at = np.argmin(np.abs(across - first - count / 2) + np.abs(along - middle - end))
        away = (np.array([0.0, 1.0]) if warp else np.array([1.0, 0.0])) * -np.sign(end)
        for _ in range(count + 1):
            path = _curl(
                cloth, rng, start=divmod(int(at), cloth.size)[::-1], heading=away, length=rng.uniform(1.5, 3.0)
            )
            mask = mask | _lay(cloth, path, width=0.20, colour=WARP if warp else WEFT, height=0.75)
    return np.asarray(_grown(mask, cloth.spacing * 0.25), dtype=np.bool_)


def cut(cloth: Cloth, rng: np.random.Generator) -> Mask:
    """A slit that gapes: yarns end raggedly on both sides and are pushed apart."""
    row, column = _place(cloth, rng, margin=0.25)
    angle, half = rng.uniform(0, np.pi), float(rng.uniform(3.6, 5.4))
    gape = float(rng.uniform(0.7, 1.1))
    right, down = _offsets(cloth, row, column)
    along = right * math.cos(angle) + down * math.sin(angle)
    aside = (
        down * math.cos(angle) - right * math.sin(angle) + np.float32(0.12) * smooth_noise(rng, right.shape, cells=12)
    )
    opening = np.float32(gape) * np.sqrt(np.maximum(1 - (along / half) ** 2, 0))
    beyond = np.maximum(np.abs(aside) - opening, 0)
    push = np.sign(aside) * opening * np.exp(-beyond / np.float32(1.6))
    cloth.x += push * np.float32(math.sin(angle))
    cloth.y -= push * np.float32(math.cos(angle))
    _end_yarns(cloth, rng, np.abs(aside) / np.maximum(opening, np.float32(1e-3)), ragged=0.45)
    cloth.lift += np.float32(0.35) * opening * np.exp(-beyond / np.float32(0.8))
    return np.asarray(_grown((np.abs(aside) < opening * np.float32(1.15)), cloth.spacing * 0.3), dtype=np.bool_)


def foreign_fibre(cloth: Cloth, rng: np.random.Generator) -> Mask:
    """A coloured thread that fell onto the cloth, curled, with its shadow."""
    start = _place(cloth, rng, margin=0.25)[::-1]
    angle = rng.uniform(0, 2 * np.pi)
    heading = np.array([math.cos(angle), math.sin(angle)])
    path = _curl(cloth, rng, start=start, heading=heading, length=float(rng.uniform(11, 17)), curl=0.9)
    colour = FIBRES[int(rng.integers(len(FIBRES)))]
    thread = _lay(cloth, path, width=float(rng.uniform(0.20, 0.26)), colour=colour, height=0.85)
    return _grown(thread, cloth.spacing * 0.12)


def hole(cloth: Cloth, rng: np.random.Generator) -> Mask:
    """A hole torn or worn into the cloth; each yarn ends somewhere else, loose fibres hang in."""
    row, column = _place(cloth, rng, margin=0.15)
    right, down = _offsets(cloth, row, column)
    reach, squeeze = float(rng.uniform(1.7, 2.7)), float(rng.uniform(0.75, 1.0))
    away = np.hypot(right, down / np.float32(squeeze))
    away *= 1 + np.float32(0.10) * smooth_noise(rng, away.shape, cells=10)
    push = (
        np.float32(0.35 * reach) * np.exp(-((away / np.float32(reach * 1.3)) ** 2)) / np.maximum(away, np.float32(0.3))
    )
    cloth.x -= push * right
    cloth.y -= push * down
    _end_yarns(cloth, rng, away / np.float32(reach), ragged=0.5)
    for _ in range(int(rng.integers(4, 8))):
        angle = rng.uniform(0, 2 * np.pi)
        rim = np.array([math.cos(angle), math.sin(angle) * squeeze])
        start = np.array([column, row]) + rim * reach * cloth.spacing
        path = _curl(cloth, rng, start=start, heading=-rim, length=float(rng.uniform(0.9, 2.0)))
        _lay(cloth, path, width=0.085, colour=WARP if rng.random() < 0.5 else WEFT, height=0.45)
    return np.asarray(away < np.float32(reach * 1.12), dtype=np.bool_)


def stain(cloth: Cloth, rng: np.random.Generator) -> Mask:
    """A dried spill: brownish, blotchy, wicked along the yarns, darker towards its rim."""
    row, column = _place(cloth, rng, margin=0.15)
    right, down = _offsets(cloth, row, column)
    reach, squeeze, turn = float(rng.uniform(2.5, 3.8)), rng.uniform(0.7, 1.0), rng.uniform(0, np.pi)
    along, across = right * math.cos(turn) + down * math.sin(turn), down * math.cos(turn) - right * math.sin(turn)
    away = np.hypot(along, across / np.float32(squeeze)) / np.float32(reach)
    wick = smooth_noise(rng, right.shape, cells=(6, 30)) + smooth_noise(rng, right.shape, cells=(30, 6))
    away += np.float32(0.12) * fractal_noise(rng, right.shape, cells=7) + np.float32(0.045) * wick
    amount = np.clip((1 - away) * np.float32(5), 0, 1)
    rim = np.exp(-(((away - np.float32(0.86)) / np.float32(0.10)) ** 2))
    strength = np.clip(amount * (np.float32(0.60) + np.float32(0.10) * fractal_noise(rng, right.shape, cells=10)), 0, 1)
    strength = np.clip(strength + np.float32(0.30) * rim * amount, 0, 1)
    cloth.dye *= 1 - strength[:, :, None] * (1 - np.asarray(STAIN, dtype=np.float32))
    return np.asarray(amount > 0.3, dtype=np.bool_)


DEFECTS: Final[dict[str, Callable[[Cloth, np.random.Generator], Mask]]] = {
    "broken_thread": broken_thread,
    "cut": cut,
    "foreign_fibre": foreign_fibre,
    "hole": hole,
    "stain": stain,
}


def _place(cloth: Cloth, rng: np.random.Generator, *, margin: float) -> tuple[int, int]:
    """Row and column of a random pixel at least `margin` of the picture away from its border."""
    row, column = rng.integers(round(margin * cloth.size), round((1 - margin) * cloth.size), 2)
    return int(row), int(column)


def _offsets(cloth: Cloth, row: int, column: int) -> tuple[Field, Field]:
    """How far each pixel lies right of and below a place, in yarn spacings."""
    axis = np.arange(cloth.size, dtype=np.float32)
    spacing = np.float32(cloth.spacing)
    right, down = (axis[None, :] - column) / spacing, (axis[:, None] - row) / spacing
    shape = (cloth.size, cloth.size)
    return np.broadcast_to(right, shape).copy(), np.broadcast_to(down, shape).copy()


def _end_yarns(cloth: Cloth, rng: np.random.Generator, away: Field, *, ragged: float) -> None:
    """Cut off both sets of yarns where `away` < 1, each yarn a little earlier or later."""
    for across, gone in ((cloth.x, cloth.warp_gone), (cloth.y, cloth.weft_gone)):
        ends = (1 - ragged * rng.uniform(0, 1, 64)).astype(np.float32)
        strands = np.floor(across * 2).astype(np.intp) % 64  # a yarn frays into two
        gone |= away < ends[strands]


def _curl(
    cloth: Cloth,
    rng: np.random.Generator,
    *,
    start: npt.ArrayLike,
    heading: npt.NDArray[np.float64],
    length: float,
    curl: float = 0.5,
) -> Field:
    """A smoothly winding path of `length` yarn spacings from a pixel (x, y), (points, 2)."""
    steps = max(8, round(length * 5))
    turns = cv2.GaussianBlur(rng.standard_normal((1, steps)), (0, 0), 4.0)[0] * curl
    angle = np.arctan2(heading[1], heading[0]) + np.cumsum(turns) + rng.normal(0, 0.3)
    stride = length * cloth.spacing / steps
    path = np.cumsum(np.stack([np.cos(angle), np.sin(angle)], axis=1) * stride, axis=0)
    return np.asarray(path + np.asarray(start), dtype=np.float32)


def _lay(cloth: Cloth, path: Field, *, width: float, colour: tuple[float, float, float], height: float) -> Mask:
    """Lay a round thread of `width` (half, in yarn spacings) on top of the cloth; where it lies."""
    canvas = np.full((cloth.size, cloth.size), 255, dtype=np.uint8)
    cv2.polylines(canvas, [np.rint(path * 16).astype(np.int32)], False, 0, 1, cv2.LINE_8, 4)
    away = np.asarray(cv2.distanceTransform(canvas, cv2.DIST_L2, 5), dtype=np.float32) / np.float32(
        cloth.spacing * width
    )
    thread = np.asarray(away < 1, dtype=np.bool_)
    top = np.float32(height) + np.float32(width) * np.sqrt(np.maximum(1 - away * away, 0))
    cloth.over = np.where(thread, np.maximum(cloth.over, top), cloth.over)
    cloth.over_colour[thread] = colour
    return thread


def _grown(mask: Mask, reach: float) -> Mask:
    diameter = 2 * max(1, round(reach)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0, dtype=np.bool_)
