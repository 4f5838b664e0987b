from pathlib import Path

import numpy as np
import pytest
import torch

from models.detector import DenseGaussianConfig, Detector, DetectorConfig, build_detector
from models.preprocess import PreprocessConfig
from training.batch_norm import estimate_batch_norm
from training.choose import Figures, ValidationSet, decide, make_validation_set, validate
from training.fit import extract, fit_gaussian
from training.progress import Progress
from training.synthetic import Synthetic, Tiles, Use, make_tiles
from training.textures import ProceduralTextures

CPU = torch.device("cpu")


def source(tiles: Tiles) -> Synthetic:
    return Synthetic(tiles, ProceduralTextures(), 0)


@pytest.fixture
def detector(part_tiles: Tiles) -> Detector:
    """Of random weights; its scorer is not fitted."""
    torch.manual_seed(0)
    config = DetectorConfig(
        arch="resnet18",
        preprocess=PreprocessConfig(image_size=64),
        fusion="none",
        scorer=DenseGaussianConfig(channels=64),
        smoothing=4.0,
    )
    built = build_detector(config).eval().requires_grad_(False)
    estimate_batch_norm(built.backbone, part_tiles.images, config.preprocess)
    return built


def fit_scorer(detector: Detector, tiles: Tiles, file: Path) -> None:
    y = extract(detector, tiles.images, file=file, device=CPU, progress=Progress.silent())
    fitted = fit_gaussian(y, epsilon=0.01, folds=None, progress=Progress.silent())
    detector.scorer.mean.copy_(fitted.mean)
    detector.scorer.whitening.copy_(fitted.whitening)


def test_a_validation_set_is_good_tiles_and_defective_copies(part_tiles: Tiles) -> None:
    held = part_tiles.subset([3, 9, 4])
    data = make_validation_set(source(held), defects=2)
    assert data.tiles.shape == (9, 3, 64, 64)
    assert data.masks.shape == (9, 64, 64)
    assert torch.equal(data.tiles[:3], held.images)
    assert not data.masks[:3].any()
    assert data.masks[3:].any(axis=(1, 2)).all()
    for index in range(3, 9):
        changed = (data.tiles[index] != held.images[index % 3]).any(0).numpy()
        assert changed.any()
        assert not (changed & ~data.masks[index]).any()
    assert not np.array_equal(data.masks[3:6], data.masks[6:9])


def test_a_validation_set_is_the_same_each_time(part_tiles: Tiles) -> None:
    one, two = (make_validation_set(source(part_tiles.subset([1, 2])), defects=2) for _ in range(2))
    assert torch.equal(one.tiles, two.tiles)
    assert np.array_equal(one.masks, two.masks)


def test_no_validation_defect_is_one_of_training(part_tiles: Tiles) -> None:
    # As textures, so that a mask depends on the draw alone; the positions 4 to 7 are drawn in both.
    learning, held = (make_tiles(part_tiles.images[part], "texture") for part in (slice(0, 4), slice(4, 16)))
    validation = {mask.tobytes() for mask in make_validation_set(source(held), defects=2).masks[12:]}
    training = {
        source(learning).example(position, use, epoch=epoch)[1].tobytes()
        for use in (Use.JIGSAW, Use.FUSION)
        for epoch in range(3)
        for position in range(4, 8)
    }
    assert (len(validation), len(training)) == (24, 24)
    assert not validation & training


def test_figures_of_a_detector_that_tells_defects(part_tiles: Tiles, detector: Detector, tmp_path: Path) -> None:
    fit_scorer(detector, part_tiles.subset(range(12)), tmp_path / "features.npy")
    good = part_tiles.images[12:]
    defective, masks = good.clone(), np.zeros((8, 64, 64), np.bool_)
    for index, (top, left) in enumerate(((4, 4), (40, 30), (20, 44), (28, 16))):
        masks[4 + index, top : top + 16, left : left + 16] = True
        defective[index][:, torch.from_numpy(masks[4 + index])] = 255
    data = ValidationSet(torch.cat([good, defective]), masks)
    figures = validate(detector, data, device=CPU, batch_size=3)
    assert figures.image_auroc == 1.0
    assert 0.9 < figures.pixel_auroc <= 1
    assert figures.decisive == pytest.approx((figures.image_auroc + figures.pixel_auroc) / 2)
    swapped = ValidationSet(data.tiles.flip(0), data.masks)
    assert validate(detector, swapped, device=CPU).image_auroc == 0.0


def test_a_detector_that_tells_nothing_is_at_chance(part_tiles: Tiles, detector: Detector) -> None:
    data = make_validation_set(source(part_tiles.subset([0, 1])), defects=1)
    assert validate(detector, data, device=CPU) == Figures(0.5, 0.5)  # every score is 0


@pytest.mark.parametrize(
    ("with_", "kept"),
    [
        (Figures(0.9, 0.8), False),  # a tie
        (Figures(0.91, 0.8), True),
        (Figures(0.85, 0.86), True),  # the mean of both decides
        (Figures(0.95, 0.74), False),
    ],
)
def test_a_stage_is_kept_only_where_it_gains(with_: Figures, kept: bool) -> None:
    choice = decide("fusion", Figures(0.9, 0.8), with_, margin=0.0)
    assert choice.kept is kept
    assert choice.stage == "fusion"
    assert ("does not raise" in choice.reason) is not kept
    assert f"0.8500 without, {with_.decisive:.4f} with" in choice.reason
    assert choice.figures == {
        "image_auroc_without": 0.9,
        "image_auroc_with": with_.image_auroc,
        "pixel_auroc_without": 0.8,
        "pixel_auroc_with": with_.pixel_auroc,
    }


@pytest.mark.parametrize(("gain", "kept"), [(0.03125, False), (0.0625, True), (0.125, True)])
def test_a_gain_below_the_margin_is_luck(gain: float, kept: bool) -> None:
    choice = decide("jigsaw", Figures(0.75, 0.75), Figures(0.75 + gain, 0.75 + gain), margin=0.0625)
    assert choice.kept is kept
    assert ("0.0625" in choice.reason) is not kept
