"""Random fields over an image: smooth noise of one scale, and of several added up.

Shared by the procedural textures and by the sample parts. Everything is drawn from the generator that is
passed in, so the same state gives the same field.
"""

import cv2
import numpy as np

from training.arrays import Field


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], *, cells: float | tuple[float, float]) -> Field:
    """Noise of about unit variance whose bumps are `1 / cells` of the image, as (rows, columns) if two.

    Normal numbers on a coarse lattice, interpolated (bicubic) up to `shape`; the lattice lies at a random
    offset, so that its nodes do not always fall on the same pixels. Returns (h, w) float32.
    """
    height, width = shape
    rows, columns = cells if isinstance(cells, tuple) else (cells, cells)
    lattice = rng.standard_normal((int(np.ceil(rows)) + 4, int(np.ceil(columns)) + 4), dtype=np.float32)
    first_row, first_column = rng.uniform(1.0, 2.0, 2)
    to_lattice = np.array([[columns / width, 0.0, first_column], [0.0, rows / height, first_row]])
    field = cv2.warpAffine(
        lattice,
        to_lattice,
        (width, height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    return np.asarray(field, dtype=np.float32)


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], *, cells: float, octaves: int = 4, gain: float = 0.5
) -> Field:
    """Octaves of smooth noise, each twice as fine and `gain` times as strong; about unit variance."""
    total = np.zeros(shape, dtype=np.float32)
    power = 0.0
    for octave in range(octaves):
        weight = gain**octave
        total += weight * smooth_noise(rng, shape, cells=cells * 2**octave)
        power += weight**2
    total /= np.float32(np.sqrt(power))
    return total


def unit_range(field: Field) -> Field:
    """The field stretched to [0, 1]; a constant one becomes zeros."""
    low, high = float(field.min()), float(field.max())
    return (field - low) / np.float32(high - low) if high > low else np.zeros_like(field)
