"""Plain-woven linen on a dark table, seen from above under raking light: a texture category.

Warp yarns run down, weft yarns across, each over and under the other; every yarn has its own thickness, shade,
twist and slubs, and the weave lies at a random phase, so no two pictures share a pixel.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from training.arrays import Field, Mask
from training.noise import smooth_noise
from training.sample_parts.camera import Camera
from training.sample_parts.light import Light, cast_shadow, matte, occlusion, slopes

YARNS: Final = 30.0  # across the picture
CRIMP: Final = 0.16  # how far a yarn swings up and down, in yarn spacings
RADIUS: Final = 0.34  # of a yarn's rounded top
NOTHING: Final = np.float32(-1.2)  # the table, in yarn spacings below the middle of the cloth

WARP: Final = (0.560, 0.465, 0.335)
WEFT: Final = (0.470, 0.390, 0.285)
TABLE: Final = (0.022, 0.022, 0.024)
KEY: Final = Light((-1.60, -1.15, 1.60), power=1.05, softness=0.2, colour=(1.02, 1.0, 0.97))
FILL: Final = Light((0.9, 0.8, 1.6), power=0.22, softness=0.4, colour=(0.95, 1.0, 1.06))
CAMERA: Final = Camera(exposure=1.25, vignette=0.18, defocus=(0.4, 0.6))


@dataclass
class Cloth:
    """A piece of cloth before it is woven and lit; defects alter it. Arrays are (s, s), colours (s, s, 3)."""

    x: Field  # in yarns: the whole part says which warp yarn, the rest where across it
    y: Field  # likewise for the weft
    warp_gone: Mask
    weft_gone: Mask
    dye: Field  # multiplies the yarns' colour
    lift: Field  # added to the height, in yarn spacings
    over: Field  # height of what lies on top; below the table where nothing does
    over_colour: Field

    @property
    def size(self) -> int:
        """Pixels along one side."""
        return int(self.x.shape[0])

    @property
    def spacing(self) -> float:
        """Pixels from one yarn to the next."""
        return self.size / YARNS


def build(rng: np.random.Generator, size: int) -> Cloth:
    """A faultless piece of cloth on `size` x `size` pixels, a little askew and unevenly taut."""
    axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(YARNS / size)
    angle = np.float32(np.deg2rad(rng.uniform(-1.5, 1.5)))
    phase = rng.uniform(4, 6, 2).astype(np.float32)
    x = axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle) + phase[0]
    y = axis[:, None] * np.cos(angle) - axis[None, :] * np.sin(angle) + phase[1]
    x += np.float32(0.16) * smooth_noise(rng, (size, size), cells=(3, 6)) + np.float32(0.035) * smooth_noise(
        rng, (size, size), cells=(16, 30)
    )
    y += np.float32(0.16) * smooth_noise(rng, (size, size), cells=(6, 3)) + np.float32(0.035) * smooth_noise(
        rng, (size, size), cells=(30, 16)
    )
    return Cloth(
        x=x,
        y=y,
        warp_gone=np.zeros((size, size), dtype=np.bool_),
        weft_gone=np.zeros((size, size), dtype=np.bool_),
        dye=np.ones((size, size, 3), dtype=np.float32),
        lift=np.zeros((size, size), dtype=np.float32),
        over=np.full((size, size), 2 * NOTHING, dtype=np.float32),
        over_colour=np.zeros((size, size, 3), dtype=np.float32),
    )


def shade(cloth: Cloth, rng: np.random.Generator) -> Field:
    """The woven and lit scene, linear light (s, s, 3)."""
    key, fill = KEY.moved(rng, 0.02), FILL.moved(rng, 0.02)
    size, spacing = cloth.size, np.float32(cloth.spacing)
    warp, warp_shade = _yarns(rng, across=cloth.x, along=cloth.y, gone=cloth.warp_gone, parity=0)
    weft, weft_shade = _yarns(rng, across=cloth.y, along=cloth.x, gone=cloth.weft_gone, parity=1)
    height = np.maximum(warp, weft)
    over = warp > weft
    table = height <= NOTHING
    colour = np.where(over[:, :, None], _tint(WARP, warp_shade), _tint(WEFT, weft_shade)) * cloth.dye
    colour[table] = TABLE
    height = height + np.where(table, 0, cloth.lift)
    on_top = cloth.over > height
    height = np.where(on_top, cloth.over, height)
    colour = np.where(on_top[:, :, None], cloth.over_colour, colour)
    relief = height * spacing
    normal = slopes(np.asarray(cv2.GaussianBlur(relief, (0, 0), size / 640), dtype=np.float32))
    sky = occlusion(relief, reach=float(spacing) * 0.9)
    lit = cast_shadow(relief, key, steps=6, blur=size / 400)
    direct = (matte(key, normal) * lit)[:, :, None] * np.asarray(key.colour, dtype=np.float32)
    round_about = matte(fill, normal)[:, :, None] * np.asarray(fill.colour, dtype=np.float32) + np.float32(0.16)
    return np.asarray(colour * (direct + round_about * sky[:, :, None]), dtype=np.float32)


def _yarns(rng: np.random.Generator, *, across: Field, along: Field, gone: Mask, parity: int) -> tuple[Field, Field]:
    """One set of yarns: their height in yarn spacings (the table where there is none) and their shade."""
    index = np.floor(across)
    which = index.astype(np.intp) % 64
    thickness = (np.float32(0.455) + rng.uniform(-0.022, 0.022, 64).astype(np.float32))[which]
    tone = (1 + rng.uniform(-0.07, 0.07, 64).astype(np.float32))[which]
    turn = rng.uniform(0, 1, 64).astype(np.float32)[which]
    shape = across.shape
    stretch = (4.0, YARNS) if parity == 0 else (YARNS, 4.0)
    thickness = thickness * (1 + np.float32(0.05) * smooth_noise(rng, shape, cells=stretch))
    aside = (across - index - np.float32(0.5)) / thickness
    inside = np.abs(aside) < 1
    swing = np.cos(np.float32(np.pi) * (along - np.float32(0.5))) * (1 - 2 * ((index + parity) % 2))
    rounded = np.sqrt(np.maximum(1 - aside * aside, 0))
    twist = np.sin(np.float32(2 * np.pi) * (np.float32(1.5) * along + np.float32(0.55) * aside + turn))
    white = rng.standard_normal(shape, dtype=np.float32)
    fibres = cv2.blur(white, (1, 9) if parity == 0 else (9, 1)) * 3
    height = (
        np.float32(CRIMP) * swing
        + np.float32(RADIUS) * rounded
        + np.float32(0.018) * twist
        + np.float32(0.012) * fibres
    )
    shade = tone * (1 + np.float32(0.05) * twist + np.float32(0.07) * fibres)
    return np.where(inside & ~gone, height, NOTHING), shade


def _tint(colour: tuple[float, float, float], shade: Field) -> Field:
    return shade[:, :, None] * np.asarray(colour, dtype=np.float32)
