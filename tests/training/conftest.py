"""What training is tried on: a tiny set of parts rich in shape, and requests for whole runs on sample pictures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.loop import Devices
from training.pipeline import TrainingRequest
from training.recipe import read_recipe
from training.samples import write_category
from training.synthetic import Tiles, make_tiles

SIZE = 64
RECIPE = """
[preprocess]
image_size = 64
[jigsaw]
use = "{use}"
tiles = 2
permutations = 4
schedule = {{ learning_rate = 1e-3, batch_size = 8, max_epochs = {epochs}, patience = {epochs} }}
[fusion]
use = "{use}"
schedule = {{ learning_rate = 1e-3, batch_size = 8, max_epochs = {epochs}, patience = {epochs} }}
[gaussian]
channels = {channels}
"""


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


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen flanges and a few cloths of 64 pixels; what is not for training cannot be read."""
    folder = tmp_path_factory.mktemp("samples")
    for category, count in (("flange", 12), ("cloth", 4)):
        written = write_category(folder, category, train=count, test_good=1, test_defective=1, size=64)
        for path in (*written.glob("test/*/*"), *written.glob("ground_truth/*/*")):
            path.write_bytes(b"not for training")
    return folder


@pytest.fixture(scope="session")
def write_recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A small recipe's file; `use` is said of the jigsaw and of the fusion."""

    def write(*, use: str, epochs: int = 1, channels: int = 24) -> str:
        path = tmp_path_factory.mktemp("recipes") / "small.toml"
        path.write_text(RECIPE.format(use=use, epochs=epochs, channels=channels))
        return str(path)

    return write


@pytest.fixture
def ask(samples: Path, write_recipe: Callable[..., str], tmp_path: Path) -> Callable[..., TrainingRequest]:
    """A request for flanges, with random weights and neither jigsaw nor fusion, unless said otherwise."""

    def make(*, use: str = "never", **fields: object) -> TrainingRequest:
        request = TrainingRequest(
            data=samples,
            category="flange",
            recipe=read_recipe(write_recipe(use=use)),
            arch="resnet18",
            weights="none",
            textures=None,
            kind="auto",
            devices=Devices(),
            artifacts=tmp_path / "artifacts",
        )
        return replace(request, **fields)  # type: ignore[arg-type]

    return make
