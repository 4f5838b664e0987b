"""A tiny real artifact, and pictures that it passes and fails; shared by all tests.

The detector is a ResNet-18 with random weights at 64 pixels, fitted on two dozen pictures of a noisy gradient.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from models.artifact import Artifact, load, save
from models.detector import DenseGaussianConfig, Detector, DetectorConfig, build_detector
from models.gaussian import covariance_factor
from models.manifest import DatasetRecord, Manifest, ThresholdRecord, WeightsRecord
from models.preprocess import PreprocessConfig

GOOD_IMAGES = 24


def good_picture(seed: int, *, size: tuple[int, int] = (96, 128)) -> NDArray[np.uint8]:
    """(h, w, 3) RGB: a coloured gradient with fine noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : complex(0, size[0]), 0 : 1 : complex(0, size[1])]
    clean = np.stack([60 + 120 * x, 90 + 60 * y, 170 - 80 * x * y], axis=-1)
    return np.clip(clean + rng.normal(0, 4, clean.shape), 0, 255).astype(np.uint8)


def bad_picture(seed: int, *, size: tuple[int, int] = (96, 128)) -> NDArray[np.uint8]:
    """A good picture with a bright square in its lower right quarter."""
    picture = good_picture(seed, size=size)
    height, width = size
    picture[height * 5 // 8 : height * 7 // 8, width * 5 // 8 : width * 7 // 8] = (255, 250, 20)
    return picture


def png(picture: NDArray[np.uint8]) -> bytes:
    """The bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def make_artifact(folder: Path, *, category: str = "plate", seed: int = 0) -> Path:
    """Fit and save an artifact under `folder`."""
    torch.manual_seed(seed)
    config = DetectorConfig(
        arch="resnet18",
        preprocess=PreprocessConfig(image_size=64),
        fusion="none",
        scorer=DenseGaussianConfig(channels=16),
        smoothing=2.0,
    )
    detector = build_detector(config).eval()
    tiles = torch.stack([detector.preprocess.resize(good_picture(1000 + n)) for n in range(GOOD_IMAGES)])
    scores = _fit(detector, tiles)
    manifest = Manifest(
        category=category,
        kind="texture",
        kind_reason="the pictures have no background",
        detector=config,
        weights=WeightsRecord(source="none", sha256="0" * 64),
        threshold=ThresholdRecord(rule="train_max", value=8 * float(scores.max()), false_reject_rate=None),
        choices=(),
        validation={},
        dataset=DatasetRecord(images=GOOD_IMAGES, fingerprint="1" * 64),
        textures="none",
        recipe={"name": "tests"},
        packages={},
    )
    return save(detector, manifest, scores, folder=folder)


@torch.inference_mode()
def _fit(detector: Detector, tiles: torch.Tensor) -> torch.Tensor:
    scorer = detector.scorer
    scorer.indices.copy_(torch.arange(0, 448, 28))
    features = scorer.embed(detector.levels(tiles))  # (n, p, d)
    scorer.mean.copy_(features.mean(0))
    centred = (features - scorer.mean).transpose(0, 1)  # (p, n, d)
    covariance = centred.transpose(1, 2) @ centred / (len(tiles) - 1)
    scorer.whitening.copy_(covariance_factor(covariance + 0.01 * torch.eye(16)))
    return detector(tiles).score.clone()


@pytest.fixture(scope="session")
def artifact_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of category `plate`, in a folder of its own; not to be changed."""
    return make_artifact(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="session")
def artifact(artifact_path: Path) -> Artifact:
    """The same, loaded."""
    return load(artifact_path)


@pytest.fixture(scope="session")
def good() -> Callable[[int], bytes]:
    """PNG files of good parts, by seed."""
    return lambda seed: png(good_picture(seed))


@pytest.fixture(scope="session")
def bad() -> Callable[[int], bytes]:
    """PNG files of defective parts, by seed."""
    return lambda seed: png(bad_picture(seed))


@pytest.fixture(scope="session")
def make() -> Callable[..., Path]:
    """`make_artifact`, for tests that need several."""
    return make_artifact


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped, saying so, where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
