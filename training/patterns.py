"""Procedural patterns: single-channel fields in [0, 1] that the procedural textures colour.

One function a family (clouds, stripes, checks, blobs, cracks, speckle), each with random scale, angle and
distortion. `PATTERNS` lists them.
"""

from collections.abc import Callable

import cv2
import numpy as np

from training.arrays import Field
from training.noise import fractal_noise, smooth_noise, unit_range


def clouds(rng: np.random.Generator, size: int) -> Field:
    """Fractal noise, from broad drifts to a fine grain."""
    cells = float(np.exp(rng.uniform(np.log(2.0), np.log(24.0))))
    return unit_range(fractal_noise(rng, (size, size), cells=cells, octaves=3, gain=rng.uniform(0.4, 0.8)))


def stripes(rng: np.random.Generator, size: int) -> Field:
    """Parallel bands at any angle, soft or hard, bent a little."""
    phase = _phase(rng, size, angle=rng.uniform(0, np.pi))
    return _sharpen(np.sin(phase), rng.uniform(0.8, 6.0))


def checks(rng: np.random.Generator, size: int) -> Field:
    """Two sets of bands at right angles: a chequered or plaid pattern."""
    angle = rng.uniform(0, np.pi)
    across, along = np.sin(_phase(rng, size, angle=angle)), np.sin(_phase(rng, size, angle=angle + np.pi / 2))
    field = across * along if rng.random() < 0.5 else (across + along) / 2
    return _sharpen(np.asarray(field, dtype=np.float32), rng.uniform(1.0, 8.0))


def blobs(rng: np.random.Generator, size: int) -> Field:
    """Noise of one scale pushed towards two levels: spots, islands, pebbles."""
    cells = float(np.exp(rng.uniform(np.log(4.0), np.log(30.0))))
    field = smooth_noise(rng, (size, size), cells=cells)
    return _sharpen(field - rng.uniform(-0.6, 0.6), rng.uniform(1.5, 6.0))


def cracks(rng: np.random.Generator, size: int) -> Field:
    """Thin lines where a noise field crosses zero: cracked or veined surfaces."""
    cells = float(np.exp(rng.uniform(np.log(3.0), np.log(14.0))))
    field = smooth_noise(rng, (size, size), cells=cells)
    field += 0.25 * smooth_noise(rng, (size, size), cells=cells * 4)
    ridge = np.minimum(np.abs(field) / np.float32(rng.uniform(0.06, 0.3)), 1)
    return 0.85 * ridge + 0.15 * unit_range(smooth_noise(rng, (size, size), cells=size / 3))


def speckle(rng: np.random.Generator, size: int) -> Field:
    """Grain drawn out along one axis: from sand to brushed metal or hair."""
    grain = rng.standard_normal((size, size), dtype=np.float32)
    short, long = int(rng.integers(1, 4)), int(rng.integers(1, max(2, size // 6)))
    kernel = (long, short) if rng.random() < 0.5 else (short, long)
    blurred = np.asarray(cv2.blur(grain, kernel), dtype=np.float32)
    return _sharpen(blurred / np.float32(blurred.std() + 1e-6), rng.uniform(0.5, 1.5))


PATTERNS: tuple[Callable[[np.random.Generator, int], Field], ...] = (clouds, stripes, checks, blobs, cracks, speckle)


def _phase(rng: np.random.Generator, size: int, *, angle: float) -> Field:
    """The argument of a wave of random period that runs in the direction `angle`, slightly bent."""
    waves = float(np.exp(rng.uniform(np.log(2.0), np.log(max(4.0, size / 8)))))
    axis = np.linspace(0, 1, size, dtype=np.float32)
    ramp = np.float32(np.cos(angle)) * axis[None, :] + np.float32(np.sin(angle)) * axis[:, None]
    bend = smooth_noise(rng, (size, size), cells=3) * np.float32(rng.uniform(0, 1.5))
    return np.float32(2 * np.pi * waves) * ramp + bend


def _sharpen(field: Field, steepness: float) -> Field:
    """[0, 1] by a logistic curve: the steeper, the closer to two flat levels."""
    return np.asarray(0.5 + 0.5 * np.tanh(np.float32(steepness) * field), dtype=np.float32)
