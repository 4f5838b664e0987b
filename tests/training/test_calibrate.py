from pathlib import Path

import pytest
import torch

from models.alignment import OVERSAMPLING, AlignmentConfig, Pose
from models.calibration import Calibration
from models.detector import DenseGaussianConfig, Detector, DetectorConfig, build_detector
from models.preprocess import PreprocessConfig
from training.batch_norm import estimate_batch_norm
from training.calibrate import GoodScores, good_scores, threshold
from training.distances import Distances
from training.features import extract
from training.fit_dense import fit_dense
from training.folds import assign_folds
from training.progress import Progress
from training.recipe import CalibrationSection
from training.synthetic import Tiles

CPU = torch.device("cpu")
SMALL = PreprocessConfig(image_size=64)
ALIGNED = PreprocessConfig(image_size=64, align=AlignmentConfig(name="rotate", along=1.2, across=1.1))


def fit_detector(
    tiles: Tiles, folder: Path, preprocess: PreprocessConfig
) -> tuple[Detector, torch.Tensor, Distances, Pose | None]:
    """A fitted detector, the pictures that it was fitted to, what came of that, and the poses."""
    torch.manual_seed(0)
    config = DetectorConfig(
        arch="resnet18", preprocess=preprocess, fusion="none", scorer=DenseGaussianConfig(channels=24), smoothing=6.0
    )
    detector = build_detector(config).eval().requires_grad_(False)
    estimate_batch_norm(detector.backbone, [tiles.images], SMALL)
    images = tiles.images
    if preprocess.align is not None:
        images = images.repeat_interleave(OVERSAMPLING, 2).repeat_interleave(OVERSAMPLING, 3)
    silent = Progress.silent()
    features, pose = extract(detector, [images], count=len(images), folder=folder, device=CPU, progress=silent)
    folds = assign_folds(len(images), 4, seed=0)
    distances = fit_dense(detector.scorer, features, epsilon=0.01, seed=0, folds=folds, device=CPU, progress=silent)
    return detector, images, distances, pose


@pytest.mark.parametrize("preprocess", [SMALL, ALIGNED], ids=["as it lies", "aligned"])
def test_good_images_score_as_the_detector_scores_them(
    part_tiles: Tiles, tmp_path: Path, preprocess: PreprocessConfig
) -> None:
    detector, images, distances, pose = fit_detector(part_tiles, tmp_path, preprocess)
    assert (pose is None) is (preprocess.align is None)
    assert distances.in_sample is not None
    good = good_scores(distances.in_sample, pose, detector)
    detection = detector(images)
    torch.testing.assert_close(good.images, detection.score, rtol=2e-3, atol=1e-3)
    finest = detection.map.flatten(1)
    pixels = finest[:, :: min(17, finest.shape[1] // 64)].flatten()
    torch.testing.assert_close(good.pixels, pixels, rtol=2e-3, atol=1e-3)


def test_scores_do_not_depend_on_how_many_images_there_are(part_tiles: Tiles, tmp_path: Path) -> None:
    detector, _, _, _ = fit_detector(part_tiles, tmp_path, ALIGNED)
    raw, pose = torch.rand(70, 16, 16), Pose(torch.rand(70, 2) - 0.5, torch.rand(70) * 6)
    good = good_scores(raw, pose, detector)
    assert good.images.shape == (70,)
    for index in (0, 63, 64, 69):
        alone = detector.finish(raw[index, None], Pose(pose.centre[index, None], pose.angle[index, None]))
        assert good.images[index].item() == pytest.approx(alone.max().item(), rel=1e-6)


def test_ignored_positions_do_not_count(part_tiles: Tiles, tmp_path: Path) -> None:
    detector, _, _, _ = fit_detector(part_tiles, tmp_path, SMALL)
    maps = torch.rand(5, 16, 16) + 1
    assert detector.smoothing.keep is not None
    detector.smoothing.keep[:, :8] = False
    loud = maps.clone()
    loud[:, :, :8] = 100
    for raw in (maps, loud):
        good = good_scores(raw, None, detector)
        assert good.images.max() < 2
        assert len(good.pixels) == 5 * 64  # of the right half every second
        assert bool((good.pixels >= 1).all())


def test_the_pixel_threshold_is_a_quantile() -> None:
    pixels = torch.randperm(2000).float()  # 0 to 1999
    assert GoodScores(pixels[:5], pixels).pixel_threshold == 1989  # of 1999 steps 99.5 %, rounded down
    assert GoodScores(torch.ones(1), torch.full((1,), 4.0)).pixel_threshold == 4.0


def test_train_max_is_the_largest_of_the_training_images_and_warns() -> None:
    section = CalibrationSection(rule="train_max")
    record, warning = threshold(
        section,
        in_sample=torch.tensor([1.0, 3.5, 2.0]),
        out_of_sample=torch.tensor([7.0, 8.0, 9.0]),
        different=3,
        pixel=2.5,
    )
    assert record.value == 3.5
    assert record.pixel == 2.5
    assert (record.rule, record.false_reject_rate) == ("train_max", None)
    assert warning is not None
    assert "rejected" in warning


@pytest.mark.parametrize("rule", ["train_max", "conformal"])
def test_regions_never_need_more_than_a_picture_that_fails(rule: str) -> None:
    scores = torch.arange(1, 100).float()
    section = CalibrationSection.model_validate({"rule": rule, "false_reject_rate": 0.5})
    for pixel, expected in ((10.0, 10.0), (1e6, None)):
        record, _ = threshold(section, in_sample=scores, out_of_sample=scores, different=len(scores), pixel=pixel)
        assert record.pixel == (record.value if expected is None else expected)


@pytest.mark.parametrize(("alpha", "rank"), [(0.01, 99), (0.02, 98), (0.1, 90), (0.5, 50)])
def test_conformal_is_the_quantile_of_out_of_sample_scores(alpha: float, rank: int) -> None:
    scores = torch.randperm(99).float() + 1  # 1 to 99
    section = CalibrationSection(rule="conformal", false_reject_rate=alpha)
    record, warning = threshold(section, in_sample=scores / 100, out_of_sample=scores, different=len(scores), pixel=0.5)
    assert record.value == rank
    assert (record.rule, record.false_reject_rate) == ("conformal", alpha)
    assert warning is None
    assert Calibration(scores).threshold(alpha) == record.value


def test_too_few_images_for_the_wished_rate_are_told() -> None:
    scores = torch.arange(20).float()
    section = CalibrationSection(rule="conformal", false_reject_rate=0.02)
    record, warning = threshold(section, in_sample=scores, out_of_sample=scores, different=len(scores), pixel=0.5)
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
    _, warning = threshold(section, in_sample=torch.rand(n), out_of_sample=torch.rand(n), different=n, pixel=0.5)
    assert (warning is not None) is warned


@pytest.mark.parametrize(("different", "promised"), [(100, 0.05), (9, 0.1)])
def test_look_alikes_do_not_make_a_promise_stricter(different: int, promised: float) -> None:
    scores, section = torch.arange(100.0), CalibrationSection(false_reject_rate=0.05)
    record, warning = threshold(section, in_sample=scores, out_of_sample=scores, different=different, pixel=0.5)
    assert record.false_reject_rate == promised
    assert record.value == Calibration(scores).threshold(promised)
    assert (warning is None) == (promised == 0.05)
    assert warning is None or "9 good images cannot vouch" in warning
