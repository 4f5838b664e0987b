"""What goes wrong with a stamped flange: chip, closed hole, crack, dent, rust, scratch.

Each function alters a part before it is lit, so that light and shadow fall on the damage as on the part, and
returns where the damage is, (s, s) bool at the part's own resolution.
"""

import math
from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from training.arrays import Field, Mask
from training.noise import fractal_noise, smooth_noise
from training.sample_parts.flange import BORE, DISC, HOLE, HOLES, Part, edge_distance, rolled_off

RUST: Final = ((0.045, 0.022, 0.013), (0.30, 0.125, 0.045))  # old and fresh, linear


def chip(part: Part, rng: np.random.Generator) -> Mask:
    """A piece broken out of the outer edge, with a rough fracture along it."""
    angle, reach = rng.uniform(0, 2 * np.pi), float(rng.uniform(0.040, 0.062))
    ray = np.hypot(part.x, part.y)
    aligned = (part.x * math.cos(angle) + part.y * math.sin(angle)) > ray * np.float32(0.9995)
    outer = float(ray[aligned & (part.edge < 0)].max())
    away = np.hypot(part.x - outer * math.cos(angle), part.y - outer * math.sin(angle))
    ragged = fractal_noise(rng, part.x.shape, cells=14, octaves=4, gain=0.6)
    bite = np.float32(reach) * (1 + np.float32(0.22) * ragged) - away
    fracture = np.clip(1 + bite / np.float32(0.018), 0, 1) * (part.edge < 0)
    damaged = (fracture > 0.1) & (part.coverage > 0)
    facets = fractal_noise(rng, part.x.shape, cells=30, octaves=3, gain=0.7)
    part.height -= fracture * (np.float32(0.012) + np.float32(0.0022) * facets)
    part.shine *= 1 - np.float32(0.35) * fracture
    part.edge = np.maximum(part.edge, bite)
    return np.asarray(damaged, dtype=np.bool_)


def closed_hole(part: Part, rng: np.random.Generator) -> Mask:
    """A bolt hole that was never punched; the tool left a shallow ring."""
    closed = int(rng.integers(len(HOLES)))
    others = tuple(hole for hole in range(len(HOLES)) if hole != closed)
    before = part.edge
    part.edge = edge_distance(part.x, part.y, others)
    part.height += rolled_off(before) - rolled_off(part.edge)
    away = np.hypot(part.x - HOLES[closed][0], part.y - HOLES[closed][1])
    part.height -= np.float32(0.0022) * np.exp(-(((away - np.float32(0.93 * HOLE)) / np.float32(0.005)) ** 2))
    return np.asarray(away < np.float32(HOLE * 1.12), dtype=np.bool_)


def crack(part: Part, rng: np.random.Generator) -> Mask:
    """A gaping crack that runs from the bore across the hub into the plate, with a branch."""
    angle = rng.uniform(0, 2 * np.pi)
    main = _jagged(rng, start=BORE * 0.97, stop=float(rng.uniform(0.86, 1.0)) * DISC, angle=angle)
    fork = main[len(main) // 2]
    heading = angle + float(rng.choice([-1, 1])) * rng.uniform(0.5, 0.8)
    branch = fork + _jagged(rng, start=0.0, stop=float(rng.uniform(0.07, 0.11)), angle=heading)
    width = np.float32(0.0056) * (1 + np.float32(0.25) * smooth_noise(rng, part.x.shape, cells=16))
    width *= np.clip(np.float32(1.25) - np.hypot(part.x, part.y) / np.float32(DISC * 1.1), 0.35, 1)
    away = np.minimum(_distance_to(part, main), _distance_to(part, branch) * np.float32(1.4))
    gap = np.exp(-((away / width) ** 2))
    lip = np.exp(-(((away - 2 * width) / width) ** 2))
    part.height += np.float32(0.0008) * lip - np.float32(0.0030) * gap
    part.shine *= 1 - np.float32(0.93) * gap
    return np.asarray((away < 2.4 * width) & (part.edge < 0), dtype=np.bool_)


def dent(part: Part, rng: np.random.Generator) -> Mask:
    """A hollow with a low rim where something hard has hit the part."""
    reach = float(rng.uniform(0.045, 0.070))
    x, y = _spot(part, rng, clearance=0.4 * reach)
    squeeze, turn = rng.uniform(0.75, 1.0), rng.uniform(0, np.pi)
    along = (part.x - x) * math.cos(turn) + (part.y - y) * math.sin(turn)
    across = (part.y - y) * math.cos(turn) - (part.x - x) * math.sin(turn)
    away = np.hypot(along, across / np.float32(squeeze)) / np.float32(reach)
    away *= 1 + np.float32(0.10) * smooth_noise(rng, part.x.shape, cells=9)
    hollow = np.exp(-(away**2) * np.sqrt(away**2 + np.float32(0.2)))
    rim = np.exp(-(((away - np.float32(1.45)) / np.float32(0.35)) ** 2))
    part.height += np.float32(reach) * (np.float32(0.03) * rim - np.float32(0.34) * hollow)
    return np.asarray((away < 1.3) & (part.edge < 0), dtype=np.bool_)


def rust(part: Part, rng: np.random.Generator) -> Mask:
    """A patch of corrosion: matte, blotchy, raised, with specks around it."""
    reach = float(rng.uniform(0.070, 0.105))
    x, y = _spot(part, rng, clearance=0.02)
    away = np.hypot(part.x - x, part.y - y) / np.float32(reach)
    blotches = fractal_noise(rng, part.x.shape, cells=11, octaves=5, gain=0.62)
    amount = np.clip((np.float32(0.95) - away + np.float32(0.34) * blotches) * np.float32(4.5), 0, 1)
    thin = np.clip((np.float32(1.35) - away + np.float32(0.34) * blotches) * np.float32(1.2), 0, 1)
    part.rust = np.maximum(np.float32(0.90) * amount, np.float32(0.30) * thin)
    age = np.clip(np.float32(0.42) + np.float32(0.42) * fractal_noise(rng, part.x.shape, cells=26, gain=0.8), 0, 1)
    old, fresh = (np.asarray(colour, dtype=np.float32) for colour in RUST)
    part.rust_colour = old + (fresh - old) * age[:, :, None]
    part.height += np.float32(0.0012) * amount * blotches
    return np.asarray((amount > 0.3) & (part.edge < 0), dtype=np.bool_)


def scratch(part: Part, rng: np.random.Generator) -> Mask:
    """A deep scratch with raised sides, and a finer one beside it."""
    path = _sweep(part, rng)
    beside = path[len(path) // 5 : -len(path) // 3] + rng.uniform(0.014, 0.022, 2) * rng.choice([-1, 1], 2)
    width = np.float32(0.0056) * (1 + np.float32(0.22) * smooth_noise(rng, part.x.shape, cells=8))
    mask = np.zeros(part.x.shape, dtype=np.bool_)
    for line, strength in ((path, 1.0), (beside, 0.6)):
        ends = np.minimum(*(np.hypot(part.x - x, part.y - y) for x, y in (line[0], line[-1])))
        pressure = np.clip(ends / np.float32(0.05), 0.4, 1) * np.float32(strength)
        away = _distance_to(part, line) / (width * pressure)
        groove = np.exp(-(away**2))
        sides = np.exp(-(((away - np.float32(1.7)) / np.float32(0.6)) ** 2))
        part.height += np.float32(0.0046) * pressure * (np.float32(0.3) * sides - groove)
        part.shine *= 1 + np.float32(0.35) * groove
        part.grain *= 1 - groove
        mask |= away < 2.6
    return np.asarray(mask & (part.edge < 0), dtype=np.bool_)


DEFECTS: Final[dict[str, Callable[[Part, np.random.Generator], Mask]]] = {
    "chip": chip,
    "closed_hole": closed_hole,
    "crack": crack,
    "dent": dent,
    "rust": rust,
    "scratch": scratch,
}


def _spot(part: Part, rng: np.random.Generator, *, clearance: float) -> tuple[float, float]:
    """A point of the steel at least `clearance` from its edge, in the part's coordinates."""
    places = np.flatnonzero(part.edge < -max(clearance, 0.01))
    place = places[int(rng.integers(places.size))]
    return float(part.x.flat[place]), float(part.y.flat[place])


def _jagged(rng: np.random.Generator, *, start: float, stop: float, angle: float) -> Field:
    """A zigzag from radius `start` to `stop` in the direction `angle`, (points, 2) as x and y."""
    radii = np.linspace(start, stop, max(4, round((stop - start) / 0.016)))
    swerve = np.cumsum(rng.normal(0, 0.0065, radii.size))
    swerve -= np.linspace(0, swerve[-1] * 0.5, radii.size) + swerve[0]
    x, y = math.cos(angle), math.sin(angle)
    return np.stack([radii * x - swerve * y, radii * y + swerve * x], axis=1).astype(np.float32)


def _sweep(part: Part, rng: np.random.Generator) -> Field:
    """A gently bent stroke that lies mostly on the steel, (points, 2) as x and y."""
    for _ in range(50):
        middle = np.asarray(_spot(part, rng, clearance=0.015))
        angle, length, bend = rng.uniform(0, 2 * np.pi), rng.uniform(0.26, 0.40), rng.uniform(-0.06, 0.06)
        steps = np.linspace(-0.5, 0.5, 40)
        ahead = np.array([math.cos(angle), math.sin(angle)])
        aside = np.array([-ahead[1], ahead[0]])
        path = middle + np.outer(steps * length, ahead) + np.outer((steps**2 * 4 - 0.5) * bend, aside)
        edge = edge_distance(path[:, 0].astype(np.float32), path[:, 1].astype(np.float32))
        if np.mean(edge < -0.005) > 0.85:
            break
    return path.astype(np.float32)


def _distance_to(part: Part, path: Field) -> Field:
    """Distance of each pixel from a polyline given in the part's coordinates, in image widths."""
    size = part.size
    # The part's frame is the picture's, shifted and turned: two pixels' coordinates tell how.
    origin = np.array([part.x[0, 0], part.y[0, 0]])
    across = np.array([part.x[0, -1] - origin[0], part.y[0, -1] - origin[1]]) / (size - 1)
    pixels = (path - origin) @ np.array([[across[0], -across[1]], [across[1], across[0]]]) / (across @ across)
    canvas = np.full((size, size), 255, dtype=np.uint8)
    cv2.polylines(canvas, [np.rint(pixels * 16).astype(np.int32)], False, 0, 1, cv2.LINE_8, 4)
    return np.asarray(cv2.distanceTransform(canvas, cv2.DIST_L2, 5), dtype=np.float32) / np.float32(size)
