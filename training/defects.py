"""Synthetic defects on good images (seed, steps 1.1 to 1.4): training data that needs no labels.

A Poisson noise field times a circular gradient, thresholded, is a ragged patch of random place and size;
pinned to the part's foreground it is the defect's mask, and a texture is blended in there. An empty mask is
redrawn, never handed out. Everything follows from the generator passed in.
"""

from typing import Final, NamedTuple

import cv2
import numpy as np

from models.errors import DatasetError
from training.arrays import Field, Mask, Rgb
from training.textures import Textures

AREA: Final = (0.001, 0.1)  # of the image that a noise mask covers, log-uniform
SMALLEST: Final = 0.0005  # of the image that is left after pinning to the foreground; below it is redrawn
OPACITY: Final = (0.15, 1.0)  # the seed's beta
REDRAWS: Final = 20


class SyntheticDefect(NamedTuple):
    """A good image with a made-up defect, and where that is."""

    image: Rgb  # (h, w, 3)
    mask: Mask  # (h, w), never empty


def poisson_noise(rng: np.random.Generator, shape: tuple[int, int], *, pitch: float, rate: float) -> Field:
    """Poisson counts of mean `rate` on a lattice of `pitch` pixels, interpolated to `shape` (seed, step 1.1).

    Returns (h, w) float32, non-negative.
    """
    height, width = shape
    rows, columns = int(np.ceil(height / pitch)) + 1, int(np.ceil(width / pitch)) + 1
    counts = rng.poisson(rate, (rows, columns)).astype(np.float32)
    to_lattice = np.array([[1 / pitch, 0, 0], [0, 1 / pitch, 0]])
    field = cv2.warpAffine(
        counts,
        to_lattice,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(field, dtype=np.float32)


def circular_gradient(shape: tuple[int, int], *, centre: tuple[float, float], scale: float) -> Field:
    """`exp(-(((x/w - xp)/s)^2 + ((y/h - yp)/s)^2))`, in [0, 1] and highest at `centre` = (xp, yp) (step 1.2).

    The seed's own formula is lost; this one falls with distance as its words ask. Returns (h, w) float32.
    """
    height, width = shape
    across = (np.arange(width, dtype=np.float32) + 0.5) / width - np.float32(centre[0])
    down = (np.arange(height, dtype=np.float32) + 0.5) / height - np.float32(centre[1])
    inverse = np.float32(-1 / scale**2)
    return np.outer(np.exp(down**2 * inverse), np.exp(across**2 * inverse)).astype(np.float32)


def noise_mask(rng: np.random.Generator, shape: tuple[int, int], *, centre: tuple[float, float]) -> Mask:
    """The seed's M_P: noise times gradient, thresholded (step 1.2). Returns (h, w) bool; may be empty.

    The threshold is the one that leaves a random share of the image, 0.1 % to 10 %; how far the gradient
    reaches beyond that decides between one compact patch and scattered specks.
    """
    share = float(np.exp(rng.uniform(*np.log(AREA))))
    scale = np.sqrt(share / np.pi) * rng.uniform(0.9, 2.5)
    pitch = max(1.0, max(shape) * np.sqrt(share) * rng.uniform(0.1, 0.5))
    noise = poisson_noise(rng, shape, pitch=pitch, rate=rng.uniform(1, 6))
    field = noise * circular_gradient(shape, centre=centre, scale=scale)
    rank = max(0, min(field.size - 1, round(field.size * (1 - share))))
    threshold = np.partition(field, rank, axis=None)[rank]
    return np.asarray((field >= threshold) & (field > 0), dtype=np.bool_)


def synthesise(rgb: Rgb, foreground: Mask, textures: Textures, rng: np.random.Generator) -> SyntheticDefect:
    """A copy of a good image with one defect of random place, size, shape and stuff (steps 1.3 and 1.4).

    `rgb` (h, w, 3) uint8; `foreground` (h, w) bool, all true for a texture category. The defect lies wholly
    on the foreground: `I' = I(1-M) + (1-b)IM + bRM` with b uniform in [0.15, 1]. Outside the mask the image
    is unchanged. A grey image gets a grey texture: its camera sees no colour, and a coloured defect would
    teach that colour is what a defect is. Raises DatasetError if the shapes differ or the foreground is empty.
    """
    if rgb.shape[:2] != foreground.shape:
        raise DatasetError(
            f"The foreground mask is {foreground.shape} but the image {rgb.shape[:2]}: resize the image before "
            "its foreground is looked for."
        )
    mask = _draw_mask(rng, foreground)
    texture = textures.draw(rng, max(foreground.shape))[: rgb.shape[0], : rgb.shape[1]]
    stuff = texture[mask]  # (p, 3)
    if _is_grey(rgb):
        stuff = np.repeat(stuff.mean(axis=1, keepdims=True), 3, axis=1)
    opacity = np.float32(rng.uniform(*OPACITY))
    image = rgb.copy()
    blended = (1 - opacity) * rgb[mask] + opacity * stuff
    image[mask] = np.rint(blended).astype(np.uint8)
    return SyntheticDefect(image, mask)


def _is_grey(rgb: Rgb) -> bool:
    # Plane against plane: `np.ptp` along the last axis takes longer than all the rest of a defect.
    red, green, blue = (rgb[..., channel] for channel in range(3))
    return np.array_equal(red, green) and np.array_equal(red, blue)


def _draw_mask(rng: np.random.Generator, foreground: Mask) -> Mask:
    """M = M_P and M_f, redrawn until something is left of it.

    Each centre is drawn on the foreground: it comes to the same as redrawing those that fall beside it.
    """
    places = np.flatnonzero(foreground)
    if not places.size:
        raise DatasetError(
            "No foreground was found in the image, so no defect can be put on it. If the category has no "
            "background, train it as a texture (--kind texture)."
        )
    height, width = foreground.shape
    for _ in range(REDRAWS):
        row, column = divmod(int(places[rng.integers(places.size)]), width)
        drawn = noise_mask(rng, (height, width), centre=((column + 0.5) / width, (row + 0.5) / height))
        mask = drawn & foreground
        if np.count_nonzero(mask) >= SMALLEST * mask.size:
            return np.asarray(mask, dtype=np.bool_)
    # A part too thin for noise to hit: what there is of it around one point.
    disc = circular_gradient((height, width), centre=(column / width, row / height), scale=0.03) > np.exp(-1)
    disc[row, column] = True
    return np.asarray(disc & foreground, dtype=np.bool_)
