from pathlib import Path

import pytest
import torch

from models.calibration import Calibration
from models.detector import DenseGaussianConfig, Detector, DetectorConfig, build_detector
from models.preprocess import PreprocessConfig
from models.smoothing import Smoothing
from training.batch_norm import estimate_batch_norm
from training.calibrate import image_scores, threshold
from training.fit import GaussianFit, extract, fit_gaussian
from training.progress import Progress
from training.recipe import CalibrationSection
from training.synthetic import Tiles

SMALL = PreprocessConfig(image_size=64)


def fit_detector(tiles: Tiles, folder: Path) -> tuple[Detector, GaussianFit]:
    torch.manual_seed(0)
    config = DetectorConfig(
        arch="resnet18", preprocess=SMALL, fusion="none", scorer=DenseGaussianConfig(channels=24), smoothing=6.0
    )
    detector = build_detector(config).eval().requires_grad_(False)
    estimate_batch_norm(detector.backbone, tiles.images, SMALL)
    silent = Progress.silent()
    y = extract(detector, tiles.images, file=folder / "f.npy", device=torch.device("cpu"), progress=silent)
    fitted = fit_gaussian(y, epsilon=0.01, folds=None, progress=silent)
    detector.scorer.mean.copy_(fitted.mean)
    detector.scorer.whitening.copy_(fitted.whitening)
    return detector, fitted


def test_scores_are_those_that_the_detector_gives(part_tiles: Tiles, tmp_path: Path) -> None:
    detector, fitted = fit_detector(part_tiles, tmp_path)
    scores = image_scores(fitted.in_sample, detector.smoothing, detector.scorer.grid)
    assert scores.shape == (16,)
    torch.testing.assert_close(scores, detector(part_tiles.images).score, rtol=1e-4, atol=0)


def test_scores_do_not_depend_on_how_many_images_there_are() -> None:
    distances = torch.rand(70, 6 * 8)
    smoothing = Smoothing(0.5)
    scores = image_scores(distances, smoothing, (6, 8))
    for index in (0, 63, 64, 69):
        alone = smoothing(distances[index].view(1, 6, 8)).max()
        assert scores[index].item() == pytest.approx(alone.item(), rel=1e-6)


def test_train_max_is_the_largest_of_the_training_images_and_warns() -> None:
    section = CalibrationSection(rule="train_max")
    record, warning = threshold(
        section, in_sample=torch.tensor([1.0, 3.5, 2.0]), out_of_sample=torch.tensor([7.0, 8.0, 9.0])
    )
    assert record.value == 3.5
    assert (record.rule, record.false_reject_rate) == ("train_max", None)
    assert warning is not None
    assert "rejected" in warning


@pytest.mark.parametrize(("alpha", "rank"), [(0.01, 99), (0.02, 98), (0.1, 90), (0.5, 50)])
def test_conformal_is_the_quantile_of_out_of_sample_scores(alpha: float, rank: int) -> None:
    scores = torch.randperm(99).float() + 1  # 1 to 99
    section = CalibrationSection(rule="conformal", false_reject_rate=alpha)
    record, warning = threshold(section, in_sample=scores / 100, out_of_sample=scores)
    assert record.value == rank
    assert (record.rule, record.false_reject_rate) == ("conformal", alpha)
    assert warning is None
    assert Calibration(scores).threshold(alpha) == record.value


def test_too_few_images_for_the_wished_rate_are_told() -> None:
    scores = torch.arange(20).float()
    section = CalibrationSection(rule="conformal", false_reject_rate=0.02)
    record, warning = threshold(section, in_sample=scores, out_of_sample=scores)
    assert record.value == 19.0
    assert record.false_reject_rate == pytest.approx(1 / 21)  # what is promised, not what was wished
    assert warning is not None
    assert "20 good images" in warning
    assert "0.02" in warning
    assert "0.048" in warning  # 1 / 21
    assert "About 50 images" in warning


@pytest.mark.parametrize(("n", "warned"), [(48, True), (49, False)])
def test_the_warning_ends_where_the_rate_can_be_had(n: int, warned: bool) -> None:
    section = CalibrationSection(rule="conformal", false_reject_rate=0.02)
    _, warning = threshold(section, in_sample=torch.rand(n), out_of_sample=torch.rand(n))
    assert (warning is not None) is warned
