"""One artifact judges real pictures alike in float32 and in bfloat16, whichever a machine computes in."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from models.artifact import load
from models.precision import Precision
from training.datasets import test_samples
from training.evaluate import Evaluation, evaluate
from training.loop import Devices
from training.pipeline import train_category
from training.progress import Progress
from training.recipe import read_recipe
from training.request import TrainingRequest

SHARED = Path(os.environ.get("JIGSIGHT_SHARED", Path(__file__).parents[2] / "shared"))
DATA, WEIGHTS = SHARED / "data" / "mvtec", SHARED / "weights" / "mobilenet_v2-imagenet.safetensors"
SETTINGS: dict[str, dict[str, object]] = {
    "alignment": {"use": "never"},
    "jigsaw": {"use": "never"},
    "fusion": {"use": "never"},
    "scorer": {"name": "gaussian", "rank": 32, "shrinkage": 0.03, "pooling": 3},
    "map": {"smoothing": 4.0},
    "calibration": {"folds": 2},
}


def fit(precision: Precision, folder: Path) -> Path:
    """An artifact of the screws, fitted to all 320 good pictures."""
    request = TrainingRequest(
        data=DATA,
        category="screw",
        recipe=read_recipe("default", overrides=SETTINGS),
        arch="mobilenet_v2",
        weights=str(WEIGHTS),
        textures=None,
        kind="object",
        devices=Devices(precision=precision),
        artifacts=folder,
    )
    return train_category(request, Progress.silent()).artifact


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Evaluation]:
    """What an artifact that was fitted in bfloat16 says of the 160 test pictures in either precision."""
    if not WEIGHTS.is_file() or not (DATA / "screw").is_dir():
        pytest.skip(f"needs MVTec AD's screws and weights of mobilenet_v2 in {SHARED}; JIGSIGHT_SHARED names another")
    path, samples = fit("bfloat16", tmp_path_factory.mktemp("screws")), test_samples(DATA, "screw")
    ways: tuple[Precision, ...] = ("float32", "bfloat16")
    return {way: evaluate(load(path).ready("cpu", precision=way), samples) for way in ways}


@pytest.mark.slow
def test_bfloat16_says_what_float32_says(judged: dict[Precision, Evaluation]) -> None:
    single, half = (np.array([image.score for image in each.images]) for each in judged.values())
    assert len(single) == 160
    order = float(spearmanr(single, half).statistic)
    verdicts = [[image.verdict for image in each.images] for each in judged.values()]
    changed = sum(one != other for one, other in zip(*verdicts, strict=True))
    first, second = (each.image_auroc for each in judged.values())
    assert first is not None
    assert second is not None
    largest = np.abs(half / single - 1).max()
    print(f"rank correlation {order:.5f}, largest change {largest:.2%}, {changed} verdicts changed")  # noqa: T201
    print(f"image AUROC {first:.4f} in float32, {second:.4f} in bfloat16")  # noqa: T201
    assert not np.array_equal(single, half)  # it was computed in bfloat16
    assert order > 0.999
    assert changed <= 3
    assert abs(first - second) < 0.002
