"""A stamped steel flange on a conveyor belt, seen from above: an object category.

Four bolt holes on lobes around a raised, turned hub with a bore; the plate is ground in one direction, the edges
are rolled by the die, a part number is laser-marked. Each part lies a little differently, under slightly different
light, with its own grain; belt and camera add theirs.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np

from training.arrays import Field
from training.noise import fractal_noise, smooth_noise
from training.sample_parts.camera import Camera
from training.sample_parts.light import Light, cast_shadow, gloss, matte, occlusion, slopes

# Shape, in image widths.
BORE: Final = 0.118
HUB: Final = 0.215
DISC: Final = 0.335
LOBE: Final = 0.108
LOBE_AT: Final = 0.287
HOLE: Final = 0.052
HOLES: Final = tuple((x * LOBE_AT, y * LOBE_AT) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)))
PLATE_HEIGHT: Final = 0.040
HUB_HEIGHT: Final = 0.022
SHIFT: Final = 0.007  # how far off its place a part may lie
TURN: Final = 1.12  # degrees
ROLL: Final = 0.013  # how far in from an edge the die has rounded it

STEEL: Final = (0.97, 0.965, 0.95)
BELT: Final = (0.055, 0.085, 0.092)
KEY: Final = Light((-0.62, -0.80, 1.10), power=1.45, softness=0.16, colour=(1.02, 1.0, 0.965))
STRIP: Final = Light((1.10, 0.25, 1.0), power=0.85, softness=0.06, colour=(0.93, 0.99, 1.07))
TOP: Final = Light((0.05, 0.10, 1.9), power=0.14, softness=0.16)
CAMERA: Final = Camera(exposure=1.22)


@dataclass
class Part:
    """One flange before it is lit. Defects alter it; arrays are (s, s), or (s, s, 3) for colours."""

    x: Field  # the part's own coordinates of each pixel, image widths from its centre
    y: Field
    edge: Field  # signed distance to the edge of the steel, negative inside
    height: Field  # in image widths above the belt
    grain: Field  # slope across the brush marks
    rust: Field  # 0 to 1: how much matte stuff covers the steel
    rust_colour: Field
    shine: Field  # multiplies what the steel reflects

    @property
    def size(self) -> int:
        """Pixels along one side."""
        return int(self.height.shape[0])

    @property
    def coverage(self) -> Field:
        """How much of each pixel is steel, 0 to 1."""
        steel = np.clip(np.float32(0.5) - self.edge * np.float32(0.7 * self.size), 0, 1)
        return np.asarray(steel, dtype=np.float32)


def place(rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    """Pixel coordinates in the frame of a part that lies a few pixels and degrees off.

    Shift and turn are drawn from a ball together: never both at their limit, and close to it often enough for
    a hundred pictures to show what is usual.
    """
    axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / size - np.float32(0.5)
    direction = rng.normal(size=3)
    off = direction / np.linalg.norm(direction) * rng.random() ** (1 / 3)
    shift = (SHIFT * off[:2]).astype(np.float32)
    angle = np.float32(np.deg2rad(TURN * off[2]))
    across, down = axis[None, :] - shift[0], axis[:, None] - shift[1]
    x = np.cos(angle) * across + np.sin(angle) * down
    y = np.cos(angle) * down - np.sin(angle) * across
    return x, y


def edge_distance(x: Field, y: Field, open_holes: tuple[int, ...] = (0, 1, 2, 3)) -> Field:
    """Signed distance to the nearest edge of the steel: negative inside it."""
    radius = np.hypot(x, y)
    outline = radius - np.float32(DISC)
    lobes = np.hypot(np.abs(x) - np.float32(LOBE_AT), np.abs(y) - np.float32(LOBE_AT)) - np.float32(LOBE)
    outline = _smooth_min(outline, lobes, np.float32(0.07))
    notch = np.float32(0.016) - np.hypot(x, y - np.float32(DISC + 0.002))
    distance = np.maximum(np.maximum(outline, np.float32(BORE) - radius), notch)
    for hole in open_holes:
        distance = np.maximum(distance, np.float32(HOLE) - np.hypot(x - HOLES[hole][0], y - HOLES[hole][1]))
    return np.asarray(distance, dtype=np.float32)


def rolled_off(edge: Field) -> Field:
    """How much lower the steel lies close to its edge, where the die has rounded it."""
    towards = np.clip(1 + edge / np.float32(ROLL), 0, 1)
    return np.asarray(np.float32(0.55 * ROLL) * towards * towards, dtype=np.float32)


def _smooth_min(a: Field, b: Field, blend: np.float32) -> Field:
    """The union of two shapes with a fillet of about `blend` in the corners between them."""
    mix = np.clip(np.float32(0.5) + np.float32(0.5) * (b - a) / blend, 0, 1)
    return np.asarray(b + (a - b) * mix - blend * mix * (1 - mix), dtype=np.float32)


def build(rng: np.random.Generator, size: int) -> Part:
    """A good part in its place, with its own grain, on `size` x `size` pixels."""
    x, y = place(rng, size)
    edge = edge_distance(x, y)
    radius = np.hypot(x, y)
    rise = np.clip((np.float32(HUB + 0.024) - radius) / np.float32(0.024), 0, 1)
    height = np.float32(PLATE_HEIGHT) + np.float32(HUB_HEIGHT) * rise * rise * (3 - 2 * rise)
    height -= np.float32(0.0035) * np.exp(-(((radius - np.float32(0.167)) / np.float32(0.0045)) ** 2))
    height -= rolled_off(edge)
    height += np.float32(0.0012) * smooth_noise(rng, (size, size), cells=2)  # sheet metal is never quite flat
    return Part(
        x=x,
        y=y,
        edge=edge,
        height=height,
        grain=_grain(rng, radius),
        rust=np.zeros_like(x),
        rust_colour=np.zeros((*x.shape, 3), dtype=np.float32),
        shine=1
        + np.float32(0.025) * fractal_noise(rng, (size, size), cells=5, octaves=3)
        - np.float32(0.62) * _marked(x, y),
    )


def shade(part: Part, rng: np.random.Generator) -> Field:
    """The lit scene, linear light (s, s, 3)."""
    size = part.size
    key, strip, top = (light.moved(rng, 0.02) for light in (KEY, STRIP, TOP))
    coverage = part.coverage
    relief = coverage * part.height * np.float32(size)
    lit = cast_shadow(relief, key, blur=size / 200)
    sky = occlusion(relief, reach=size / 28)
    belt = _belt(rng, size, lit=lit, sky=sky, key=key)
    steel = _steel(part, lit=lit, sky=sky, lights=(key, strip, top))
    return belt + coverage[:, :, None] * (steel - belt)


def _steel(part: Part, *, lit: Field, sky: Field, lights: tuple[Light, Light, Light]) -> Field:
    """Ground plate and turned hub: anisotropic reflections of three lamps and of a dim surrounding."""
    key, strip, top = lights
    radius = np.maximum(np.hypot(part.x, part.y), np.float32(1e-4))
    turned = radius < np.float32(HUB + 0.012)
    tangent = np.where(turned, -part.y / radius, 1), np.where(turned, part.x / radius, 0)
    across, down = slopes(part.height * np.float32(part.size))
    normal = across - part.grain * tangent[1], down + part.grain * tangent[0]
    spread = (0.08, 0.42)
    shining = np.zeros((part.size, part.size, 3), dtype=np.float32)
    for lamp, reaching in ((key, lit), (strip, None), (top, None)):
        seen = gloss(lamp, normal, tangent=tangent, roughness=spread)
        seen = seen if reaching is None else seen * reaching
        shining += seen[:, :, None] * np.asarray(lamp.colour, dtype=np.float32)
    room = np.float32(0.17) - np.float32(0.10) * np.clip(normal[1] + np.float32(0.6) * normal[0], -0.8, 0.8)
    steel = (shining + room[:, :, None]) * (sky * part.shine)[:, :, None] * np.asarray(STEEL, dtype=np.float32)
    if part.rust.any():
        dull = (matte(key, (across, down)) * lit + matte(top, (across, down)) + np.float32(0.12)) * sky
        steel += part.rust[:, :, None] * (dull[:, :, None] * part.rust_colour - steel)
    return np.asarray(steel, dtype=np.float32)


def _belt(rng: np.random.Generator, size: int, *, lit: Field, sky: Field, key: Light) -> Field:
    """A dark rubber belt with a fine diagonal fabric print, the same everywhere."""
    axis = np.arange(size, dtype=np.float32) * np.float32(256 / size)
    phase = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    wave = np.float32(2 * np.pi / 5.2)
    plus, minus = axis[None, :] + axis[:, None], axis[None, :] - axis[:, None]
    print_ = np.sin(wave * plus + phase[0]) * np.sin(wave * minus + phase[1])
    stuff = 1 + np.float32(0.16) * print_ + np.float32(0.10) * rng.standard_normal((size, size), dtype=np.float32)
    stuff += np.float32(0.05) * fractal_noise(rng, (size, size), cells=4, octaves=3)
    flat = np.zeros((size, size), dtype=np.float32)
    light = (matte(key, (flat, flat)) * lit + np.float32(0.22)) * sky
    return np.asarray((stuff * light)[:, :, None] * np.asarray(BELT, dtype=np.float32), dtype=np.float32)


def _grain(rng: np.random.Generator, radius: Field) -> Field:
    """Slopes left by grinding (along x on the plate) and turning (rings on the hub)."""
    size = radius.shape[0]
    white = rng.standard_normal((size, size), dtype=np.float32)
    plate = 5 * cv2.blur(white, (size // 7, 1)) + 2 * cv2.blur(white[::-1], (size // 28, 1))
    rings = rng.standard_normal(2 * size, dtype=np.float32)
    rings = np.convolve(rings, np.ones(3, dtype=np.float32) / 3, mode="same")
    hub = rings[(radius * np.float32(1.6 * size)).astype(np.intp) % rings.size]
    return np.where(radius < np.float32(HUB + 0.012), np.float32(0.07) * hub, np.float32(0.07) * plate)


@lru_cache(maxsize=1)
def _marking() -> Field:
    """The part number as a laser darkens it, along an arc above the hub; 0 to 1 on a square around the part."""
    canvas, radius = 1024, 0.282
    strip = 64
    text = np.zeros((strip, round(2 * np.pi * radius * canvas)), dtype=np.uint8)
    label = "JS 30-4"
    (width, height), _ = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 1.6, 5)
    left = text.shape[1] * 3 // 4 - width // 2  # angles run clockwise from the right: three quarters is the top
    cv2.putText(text, label, (left, (strip + height) // 2), cv2.FONT_HERSHEY_SIMPLEX, 1.6, 255, 5, cv2.LINE_AA)
    polar = np.zeros((text.shape[1], canvas // 2), dtype=np.uint8)
    first = round(radius * canvas) - strip // 2
    polar[:, first : first + strip] = np.rot90(text, -1)
    # Without FILL_OUTLIERS the corners keep whatever their memory held before, and one seed makes several parts.
    flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS
    flat = cv2.warpPolar(polar, (canvas, canvas), (canvas / 2, canvas / 2), canvas / 2, flags)
    return np.asarray(cv2.GaussianBlur(flat.astype(np.float32) / np.float32(255), (0, 0), 1.0), dtype=np.float32)


def _marked(x: Field, y: Field) -> Field:
    marking = _marking()
    scale = np.float32(marking.shape[0])
    columns, rows = (x + np.float32(0.5)) * scale, (y + np.float32(0.5)) * scale
    return np.asarray(cv2.remap(marking, columns, rows, cv2.INTER_LINEAR), dtype=np.float32)
