"""A tiny set of parts that are rich in shape: what training's stages are tried on."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.synthetic import Tiles, make_tiles

SIZE = 64


def part_picture(seed: int) -> NDArray[np.uint8]:
    """(64, 64, 3) RGB: a grey plate with four different patches, slightly moved, on a dark ground, with grain."""
    rng = np.random.default_rng(seed)
    picture = np.full((SIZE, SIZE, 3), 40, np.uint8)
    down, across = rng.integers(-2, 3, 2)
    for top, left, height, width, colour in (
        (8, 8, 48, 48, (150, 150, 150)),
        (12, 12, 14, 14, (220, 40, 40)),
        (12, 40, 10, 8, (40, 200, 60)),
        (38, 12, 8, 16, (50, 70, 230)),
        (40, 40, 12, 12, (240, 220, 60)),
    ):
        picture[top + down : top + down + height, left + across : left + across + width] = colour
    return np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def part_tiles() -> Tiles:
    """Sixteen good parts as tiles of 64 pixels, with their foregrounds; not to be changed."""
    pictures = np.stack([part_picture(seed) for seed in range(16)])
    return make_tiles(torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), "object")
