"""Light on a height field seen from straight above: reflections, matte shading, shadows, occlusion.

A surface is given by its slopes. A light is a soft box near the part; what a brushed metal shows of it is a
Gaussian lobe around the mirror direction, narrow along the brush marks and wide across them (Beckmann's form,
written in slopes). Lengths are image widths, x to the right, y down, z towards the camera.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from training.arrays import Field


@dataclass(frozen=True)
class Light:
    """A soft box: where it is, how bright, how large it looks from the part (as a slope), its colour."""

    position: tuple[float, float, float]
    power: float
    softness: float
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def moved(self, rng: np.random.Generator, distance: float) -> "Light":
        """The same lamp, hung up to `distance` away along each axis and as much brighter or dimmer."""
        x, y, z = (float(value) for value in np.asarray(self.position) + rng.uniform(-distance, distance, 3))
        power = self.power * float(1 + rng.uniform(-distance, distance))
        return Light((x, y, z), power, self.softness, self.colour)

    def directions(self, size: int) -> tuple[Field, Field, Field]:
        """The unit vector from each pixel of a `size` x `size` picture to the light, by component."""
        coarse = np.arange(33, dtype=np.float32) / 32 - np.float32(0.5)
        here, there = np.meshgrid(coarse, coarse)
        across, down = np.float32(self.position[0]) - here, np.float32(self.position[1]) - there
        up = np.full_like(across, self.position[2])
        length = np.sqrt(across**2 + down**2 + up**2)
        x, y, z = (
            np.asarray(cv2.resize(part / length, (size, size), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
            for part in (across, down, up)
        )
        return x, y, z


def slopes(height: Field) -> tuple[Field, Field]:
    """The surface normal's x and y over its z: minus the height's gradient. `height` is in pixels."""
    across = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=-1 / 8, borderType=cv2.BORDER_REPLICATE)
    down = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=-1 / 8, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(across, dtype=np.float32), np.asarray(down, dtype=np.float32)


def gloss(
    light: Light,
    normal: tuple[Field, Field],
    *,
    tangent: tuple[Field, Field],
    roughness: tuple[float, float],
) -> Field:
    """What a surface brushed along `tangent` reflects of a light to the camera, (s, s) float32.

    `roughness` is the spread of the microscopic slopes along and across the brush marks.
    """
    x, y, z = light.directions(normal[0].shape[0])
    off_x, off_y = x / (1 + z) - normal[0], y / (1 + z) - normal[1]
    along = off_x * tangent[0] + off_y * tangent[1]
    across = off_y * tangent[0] - off_x * tangent[1]
    narrow, wide = (np.float32(1 / (spread**2 + light.softness**2)) for spread in roughness)
    lobe = np.exp(-(along * along * narrow + across * across * wide))
    return np.asarray(lobe * np.float32(light.power), dtype=np.float32)


def matte(light: Light, normal: tuple[Field, Field]) -> Field:
    """What a matte surface sends of a light to the camera (Lambert), (s, s) float32."""
    x, y, z = light.directions(normal[0].shape[0])
    facing = (x * normal[0] + y * normal[1] + z) / np.sqrt(1 + normal[0] ** 2 + normal[1] ** 2)
    return np.asarray(np.maximum(facing, 0) * np.float32(light.power), dtype=np.float32)


def occlusion(height: Field, *, reach: float) -> Field:
    """How much of the sky a point sees, 0 to 1: less where its surroundings stand higher than it."""
    open_sky = np.ones_like(height)
    for sigma, weight in ((reach, 0.55), (reach / 3, 0.45)):
        around = cv2.GaussianBlur(height, (0, 0), sigma)
        open_sky *= 1 / (1 + np.float32(weight * 1.6 / sigma) * np.maximum(around - height, 0))
    return open_sky


def cast_shadow(height: Field, light: Light, *, steps: int = 8, blur: float = 2.0) -> Field:
    """How much of a light reaches a point past what stands in its way, 0 to 1."""
    direction = np.asarray(light.position[:2], dtype=np.float64)
    slope = light.position[2] / float(np.hypot(*direction))
    direction /= np.hypot(*direction)
    reach = float(height.max() - height.min()) / slope
    blocked = np.zeros_like(height)
    for step in range(1, steps + 1):
        distance = reach * step / steps
        move = np.array([[1, 0, direction[0] * distance], [0, 1, direction[1] * distance]])
        towards = cv2.warpAffine(
            height,
            move,
            height.shape[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        np.maximum(blocked, towards - height - np.float32(distance * slope), out=blocked)
    return 1 - np.asarray(cv2.GaussianBlur(np.minimum(blocked / 2, 1), (0, 0), blur), dtype=np.float32)
