"""What training is tried on: a tiny set of parts rich in shape, and requests for whole runs on sample pictures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.backbone import Backbone, Grids, build_backbone
from models.preprocess import PreprocessConfig
from models.whole_numbers import in_whole_numbers
from training.batch_norm import estimate_batch_norm
from training.features import Features
from training.loop import Devices
from training.progress import Progress
from training.recipe import Recipe, read_recipe
from training.request import TrainingRequest
from training.samples import write_category
from training.synthetic import Tiles, make_tiles
from training.workshop import Workshop

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
[alignment]
use = "{align}"
[scorer]
{scorer}
[map]
smoothing = {smoothing}
[calibration]
folds = 4
"""
BRIEF = {"learning_rate": 1e-3, "batch_size": 8, "max_epochs": 1, "patience": 1}
DENSE = 'name = "dense_gaussian"\nchannels = 24'


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
def part_tiles(tmp_path_factory: pytest.TempPathFactory) -> Tiles:
    """Sixteen good parts as tiles of 64 pixels, with their foregrounds; not to be changed."""
    pictures = np.stack([part_picture(seed) for seed in range(16)])
    tiles = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    return make_tiles(tiles, "object", folder=tmp_path_factory.mktemp("foregrounds"))


@pytest.fixture
def make_workshop(tmp_path: Path) -> Callable[..., Workshop]:
    """A workshop for ResNet-18 at 64 pixels; sections of the recipe may be given."""

    def make(*, ignored: NDArray[np.bool_] | None = None, **sections: object) -> Workshop:
        recipe = {
            "preprocess": {"image_size": SIZE},
            "alignment": {"use": "never"},
            "jigsaw": {"use": "never", "tiles": 2, "permutations": 4, "schedule": BRIEF},
            "fusion": {"use": "never", "schedule": BRIEF},
            "scorer": {"name": "gaussian", "rank": 4, "shrinkage": 0.1, "pooling": 3, "dimensions": 0.1},
            "map": {"smoothing": 4.0},
            "calibration": {"folds": 4},
        }
        return Workshop(
            recipe=Recipe.model_validate(recipe | sections),
            arch="resnet18",
            pretrained=False,
            devices=Devices(),
            folder=tmp_path / "work",
            progress=Progress.silent(),
            ignored=ignored,
        )

    return make


@pytest.fixture(scope="session")
def part_backbone(part_tiles: Tiles) -> Backbone:
    """A ResNet-18 of random weights whose batch norms know the parts; not to be changed."""
    torch.manual_seed(0)
    network = build_backbone("resnet18")
    estimate_batch_norm(network, [part_tiles.images], in_whole_numbers(PreprocessConfig(image_size=SIZE)))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def some_features(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Features]:
    """Features of `n` pictures, in memory: correlated and skewed, far from the origin, as after a ReLU."""

    def make(
        n: int,
        *,
        channels: tuple[int, int, int] = (3, 4, 5),
        grids: Grids = ((8, 8), (4, 4), (2, 2)),
        seed: int = 0,
    ) -> Features:
        rng = np.random.default_rng(seed)
        levels = []
        for c, (h, w) in zip(channels, grids, strict=True):
            mixing = rng.normal(size=(h, w, c, c)) / np.sqrt(c)
            level = np.einsum("hwnc,hwcd->hwnd", rng.normal(size=(h, w, n, c)), mixing)
            levels.append(torch.from_numpy(np.maximum(level + 2, 0).astype(np.float32)))
        return Features(tuple(levels), tmp_path_factory.getbasetemp())

    return make


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen flanges and a few cloths of 64 pixels; what is not for training cannot be read."""
    folder = tmp_path_factory.mktemp("samples")
    for category, count in (("flange", 12), ("cloth", 8)):
        written = write_category(folder, category, train=count, test_good=1, test_defective=1, size=64)
        for path in (*written.glob("test/*/*"), *written.glob("ground_truth/*/*")):
            path.write_bytes(b"not for training")
    return folder


@pytest.fixture(scope="session")
def write_recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A small recipe's file with the dense Gaussian; `use` is said of the jigsaw and of the fusion."""

    def write(
        *, use: str, epochs: int = 1, align: str = "never", scorer: str = DENSE, smoothing: float | list[float] = 4.0
    ) -> str:
        path = tmp_path_factory.mktemp("recipes") / "small.toml"
        path.write_text(RECIPE.format(use=use, epochs=epochs, align=align, scorer=scorer, smoothing=smoothing))
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
