"""A tiny real artifact, pictures that it passes and fails, and a server process; shared by all tests.

The detector is a ResNet-18 with random weights at 64 pixels, fitted on two dozen pictures of a noisy gradient.
"""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from models.artifact import Artifact, load, save
from models.detector import Detector, DetectorConfig, build_detector
from models.manifest import DatasetRecord, Manifest, ThresholdRecord, WeightsRecord
from models.precision import round_to_stored
from models.preprocess import PreprocessConfig
from training.features import extract
from training.fit import Fitter
from training.progress import Progress
from training.recipe import DenseGaussianSection, GaussianSection, ScorerSection

GOOD_IMAGES = 24
COMPACT = GaussianSection(rank=(4,), shrinkage=(0.1,), pooling=(3,), dimensions=32 / 448)
DENSE = DenseGaussianSection(channels=16)
SMALL = PreprocessConfig(image_size=64, reduced_jpeg=True)
_COMMAND = "import typer, service.cli; app = typer.Typer(); service.cli.register(app); app()"


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


def make_artifact(
    folder: Path,
    *,
    category: str = "plate",
    seed: int = 0,
    section: ScorerSection = COMPACT,
    preprocess: PreprocessConfig = SMALL,
) -> Path:
    """Fit and save an artifact under `folder`."""
    torch.manual_seed(seed)
    fitter = Fitter(section, "resnet18", preprocess.side, seed, torch.device("cpu"), Progress.silent())
    config = DetectorConfig(
        arch="resnet18", preprocess=preprocess, fusion="none", scorer=fitter.first(GOOD_IMAGES), smoothing=2.0
    )
    detector = build_detector(config).eval().requires_grad_(False)
    scores = _fit(detector, fitter, folder)
    manifest = Manifest(
        category=category,
        kind="texture",
        kind_reason="the pictures have no background",
        detector=config,
        weights=WeightsRecord(source="none", sha256="0" * 64),
        threshold=ThresholdRecord(rule="train_max", value=12 * float(scores.max()), false_reject_rate=None),
        choices=(),
        validation={},
        dataset=DatasetRecord(images=GOOD_IMAGES, fingerprint="1" * 64),
        textures="none",
        recipe={"name": "tests"},
        packages={},
    )
    return save(detector, manifest, scores, folder=folder)


@torch.inference_mode()
def _fit(detector: Detector, fitter: Fitter, folder: Path) -> torch.Tensor:
    """Fit the detector, and score the pictures that it was fitted to by folds."""
    round_to_stored(detector)
    tiles = torch.stack([detector.preprocess.resize(good_picture(1000 + n)) for n in range(GOOD_IMAGES)])
    features, poses = extract(
        detector, [tiles], count=GOOD_IMAGES, folder=folder, device=fitter.device, progress=fitter.progress
    )
    distances = fitter.fit(detector.scorer, features, folds=np.arange(GOOD_IMAGES) % 4)
    assert distances.out_of_sample is not None
    return detector.finish(distances.out_of_sample, poses).flatten(1).amax(1)


@pytest.fixture(scope="session")
def artifact_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of category `plate`, in a folder of its own; not to be changed."""
    return make_artifact(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="session")
def artifact(artifact_path: Path) -> Artifact:
    """The same, loaded."""
    return load(artifact_path)


@pytest.fixture(scope="session")
def dense_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with a dense Gaussian; not to be changed."""
    return make_artifact(tmp_path_factory.mktemp("dense"), section=DENSE)


@pytest.fixture(scope="session")
def dense_artifact(dense_path: Path) -> Artifact:
    """The same, loaded."""
    return load(dense_path)


@pytest.fixture(scope="session")
def good() -> Callable[[int], bytes]:
    """PNG files of good parts, by seed."""
    return lambda seed: png(good_picture(seed))


@pytest.fixture(scope="session")
def bad() -> Callable[[int], bytes]:
    """PNG files of defective parts, by seed."""
    return lambda seed: png(bad_picture(seed))


@pytest.fixture(scope="session")
def enlarged() -> Callable[..., bytes]:
    """A picture's file -> one of eight times its edges, 1024x768, a JPEG; with Pillow's options."""

    def make(data: bytes, **options: object) -> bytes:
        file = io.BytesIO()
        with Image.open(io.BytesIO(data)) as image:
            image.resize((image.width * 8, image.height * 8)).save(file, "JPEG", quality=95, **options)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def make() -> Callable[..., Path]:
    """`make_artifact`, for tests that need several."""
    return make_artifact


@contextmanager
def serve(artifacts: Path, data: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process on a free port, and its address once it has said so. Its log is `data`/server.log."""
    command = [sys.executable, "-c", _COMMAND, "serve", "--port", "0", "--device", "cpu"]
    command += ["--artifacts", str(artifacts), "--data", str(data)]
    data.mkdir(parents=True, exist_ok=True)
    log = data / "server.log"
    with log.open("a") as file:  # a pipe that nobody reads would fill, and stop the server
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=file, text=True, env=os.environ | environment
        )
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if found := re.search(r"listens on (http://\S+)", line):
                yield process, found[1]
                return
        pytest.fail(f"the server ended without a word about its address:\n{said}{log.read_text()}")
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]:
    """`serve`, for tests that need a server process."""
    return serve


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped, saying so, where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
