from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models.alignment import OVERSAMPLING, AlignmentConfig
from models.detector import DenseGaussianConfig, Detector, DetectorConfig, build_detector
from models.errors import RecipeError
from models.precision import round_to_stored
from models.preprocess import PreprocessConfig
from training.batch_norm import estimate_batch_norm
from training.features import Features, extract
from training.progress import Progress
from training.synthetic import Tiles

CPU = torch.device("cpu")
SMALL = PreprocessConfig(image_size=64)


def detector(tiles: Tiles, preprocess: PreprocessConfig = SMALL) -> Detector:
    torch.manual_seed(0)
    config = DetectorConfig(
        arch="resnet18",
        preprocess=preprocess,
        fusion="none",
        scorer=DenseGaussianConfig(channels=8),
        smoothing=4.0,
    )
    built = build_detector(config).eval().requires_grad_(False)
    estimate_batch_norm(built.backbone, [tiles.images], SMALL)
    return built


@pytest.mark.parametrize("size", [1, 5, 16])
def test_extracted_levels_are_the_detectors(part_tiles: Tiles, tmp_path: Path, size: int) -> None:
    seer = detector(part_tiles)
    progress = Progress.silent()
    batches = part_tiles.batches(size)
    features, pose = extract(seer, batches, count=16, folder=tmp_path, device=CPU, progress=progress)
    assert pose is None
    assert (features.count, features.channels) == (16, (64, 128, 256))
    assert features.grids == ((16, 16), (8, 8), (4, 4))
    levels, _ = seer.levels(part_tiles.images)
    for mine, theirs in zip(features.batch(range(16)), levels, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert (features.dtype, features.folder) == (torch.float32, tmp_path)
    assert "features" in progress.seconds
    assert list(tmp_path.iterdir()) == []


def test_features_are_kept_in_what_they_were_computed_in(part_tiles: Tiles, tmp_path: Path) -> None:
    seer, few = detector(part_tiles), part_tiles.subset([3, 1])
    round_to_stored(seer)
    half = seer.for_scoring(CPU, torch.bfloat16)
    features, _ = extract(half, few.batches(), count=2, folder=tmp_path, device=CPU, progress=Progress.silent())
    assert features.dtype == torch.bfloat16
    computed, _ = half.levels(next(few.batches(99)))
    for mine, theirs in zip(features.batch([0, 1]), computed, strict=True):
        assert torch.equal(mine, theirs.float())
    for mine, theirs in zip(features.batch([0, 1]), seer.levels(next(few.batches(99)))[0], strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() < 0.02 * theirs.norm()


def test_tiles_make_one_finer_grid(part_tiles: Tiles, tmp_path: Path) -> None:
    seer = detector(part_tiles, PreprocessConfig(image_size=32, tiles=2))
    few = part_tiles.subset([3, 1])
    features, _ = extract(seer, few.batches(), count=2, folder=tmp_path, device=CPU, progress=Progress.silent())
    assert features.grids == ((16, 16), (8, 8), (4, 4))
    for mine, theirs in zip(features.batch([0, 1]), seer.levels(next(few.batches(99)))[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_poses_come_with_the_features_of_aligned_parts(part_tiles: Tiles, tmp_path: Path) -> None:
    align = AlignmentConfig(name="rotate", along=1.1)
    seer = detector(part_tiles, PreprocessConfig(image_size=64, align=align))
    wide = part_tiles.images.repeat_interleave(OVERSAMPLING, 2).repeat_interleave(OVERSAMPLING, 3)
    features, pose = extract(seer, wide.split(5), count=16, folder=tmp_path, device=CPU, progress=Progress.silent())
    levels, expected = seer.levels(wide)
    assert pose is not None
    assert expected is not None
    assert features.grids[0] == (16, 16)
    torch.testing.assert_close(pose, expected)
    for mine, theirs in zip(features.batch(range(16)), levels, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_no_room_for_features_is_said(part_tiles: Tiles, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no room"):
        extract(
            detector(part_tiles),
            part_tiles.batches(),
            count=10**12,
            folder=tmp_path,
            device=CPU,
            progress=Progress.silent(),
        )


def test_batches_are_the_pictures_in_order(some_features: Callable[..., Features]) -> None:
    features = some_features(7)
    levels = features.batch([0, 1, 2, 3, 4, 5, 6])
    for level, kept in zip(levels, features.levels, strict=True):
        assert level.dtype == torch.float32
        assert level.is_contiguous()
        assert torch.equal(level, kept.permute(2, 3, 0, 1))
    batches = list(features.batches(3))
    assert [len(batch[0]) for batch in batches] == [3, 3, 1]
    for index, whole in enumerate(levels):
        assert torch.equal(torch.cat([batch[index] for batch in batches]), whole)
    some = list(features.batches(2, indices=[5, 0, 6]))
    assert torch.equal(torch.cat([batch[2] for batch in some]), levels[2][[5, 0, 6]])


def test_a_subset_of_a_subset_knows_its_places(some_features: Callable[..., Features]) -> None:
    features = some_features(7)
    few = features.subset(np.array([6, 2, 4, 0]))
    fewer = few.subset(np.array([3, 1]))
    assert (few.count, fewer.count) == (4, 2)
    assert few.places(np.array([1, 0])).tolist() == [2, 6]
    assert fewer.places(np.arange(2)).tolist() == [0, 2]
    backwards = fewer.batch(np.arange(2)[::-1])
    assert torch.equal(backwards[0], features.batch([2, 0])[0])
    assert fewer.levels is features.levels
    assert (fewer.channels, fewer.grids) == (features.channels, features.grids)
    for mine, theirs in zip(next(fewer.batches()), features.batch([0, 2]), strict=True):
        assert torch.equal(mine, theirs)
