"""From light to pixels: what lens and sensor of an inspection camera make of a rendered scene.

Bloom around highlights, slight defocus, vignetting, exposure and white balance that drift a little, photon and
read noise, and a film-like tone curve.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from training.arrays import Field, Rgb


@dataclass(frozen=True)
class Camera:
    """The fixed and the drifting properties of a camera."""

    exposure: float = 1.0
    exposure_drift: float = 0.02  # each way, drawn for each picture
    white_drift: float = 0.008
    defocus: tuple[float, float] = (0.45, 0.7)  # pixels at 256, drawn for each picture
    vignette: float = 0.22  # light lost in the corners
    bloom: float = 0.08
    full_well: float = 6000.0  # photons at white: sets the shot noise
    read_noise: float = 0.003

    def develop(self, scene: Field, size: int, rng: np.random.Generator) -> Rgb:
        """A linear scene (s, s, 3), white at 1, as a picture (size, size, 3) uint8."""
        light = np.asarray(cv2.resize(scene, (size, size), interpolation=cv2.INTER_AREA), dtype=np.float32)
        light *= np.float32(self.exposure * (1 + rng.uniform(-self.exposure_drift, self.exposure_drift)))
        light *= (1 + rng.uniform(-self.white_drift, self.white_drift, 3)).astype(np.float32)
        unit = size / 256
        glow = cv2.GaussianBlur(np.maximum(light - np.float32(0.75), 0), (0, 0), 7 * unit)
        light = cv2.GaussianBlur(light, (0, 0), rng.uniform(*self.defocus) * unit) + np.float32(self.bloom) * glow
        light *= self._falloff(size, rng)[:, :, None]
        noise = rng.standard_normal(light.shape, dtype=np.float32)
        light += noise * np.sqrt(np.maximum(light, 0) / np.float32(self.full_well) + np.float32(self.read_noise**2))
        return _tone(light)

    def _falloff(self, size: int, rng: np.random.Generator) -> Field:
        axis = np.linspace(-1, 1, size, dtype=np.float32)
        off = rng.uniform(-0.03, 0.03, 2).astype(np.float32)
        radius2 = (axis[None, :] - off[0]) ** 2 + (axis[:, None] - off[1]) ** 2
        return np.asarray(1 - np.float32(self.vignette / 2) * radius2, dtype=np.float32)


def _tone(light: Field) -> Rgb:
    """Linear light to 8 bits: sRGB-like gamma with a soft shoulder, so that highlights do not clip hard."""
    light = np.maximum(light, 0)
    rolled = light * (1 + light / np.float32(6.0)) / (1 + light * np.float32(0.62))
    curve = np.power(np.minimum(rolled, 1), np.float32(1 / 2.2))
    return np.asarray(np.rint(curve * 255), dtype=np.uint8)
