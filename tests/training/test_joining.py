from collections.abc import Callable

import numpy as np
import pytest
import torch

from models.backbone import ARCHITECTURES, channels, grids
from models.mfcsam import concatenate
from models.pooling import pooled
from training import joining as module
from training.features import Features
from training.joining import Joining, Patch, weighted

CPU = torch.device("cpu")
SomeFeatures = Callable[..., Features]


def joined(features: Features, pooling: int, images: np.ndarray) -> torch.Tensor:
    """Y of pictures at all positions, (p, m, d), from a walk over the blocks."""
    joining = Joining(features, pooling)
    height, width = features.grids[0]
    whole = torch.full((height * width, len(images), sum(features.channels)), float("nan"))
    for block in joining.blocks(len(images)):
        assert torch.isnan(whole[block.positions]).all(), "no position comes twice"
        whole[block.positions] = joining.embed(block, images, CPU)
    return whole


def expected(features: Features, pooling: int, images: np.ndarray) -> torch.Tensor:
    """The same with whole pictures, as the scorers do it."""
    return concatenate(pooled(features.batch(images), pooling)).flatten(2).permute(2, 0, 1)


@pytest.mark.parametrize("pooling", [1, 3, 5])
@pytest.mark.parametrize("positions", [1, 3, 100])
def test_blocks_of_any_size_are_what_the_scorers_see(
    some_features: SomeFeatures, monkeypatch: pytest.MonkeyPatch, pooling: int, positions: int
) -> None:
    features, images = some_features(5), np.arange(5)
    monkeypatch.setattr(module, "_BLOCK_BYTES", positions * 4 * 5 * 12)
    y = joined(features, pooling, images)
    torch.testing.assert_close(y, expected(features, pooling, images), rtol=1e-5, atol=1e-5)
    longest = max(len(range(*block.positions.indices(64))) for block in Joining(features, pooling).blocks(5))
    assert longest == min(positions, 8)


@pytest.mark.parametrize("pooling", [1, 3])
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("side", [64, 96])
def test_every_backbones_levels_are_joined(some_features: SomeFeatures, arch: str, side: int, pooling: int) -> None:
    thin = tuple(max(1, c // 32) for c in channels(arch))  # the ratios of the grids are what matters
    features, images = some_features(2, channels=thin, grids=grids(side)), np.arange(2)
    torch.testing.assert_close(
        joined(features, pooling, images), expected(features, pooling, images), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("positions", [1, 3, 100])
def test_what_is_made_of_whole_levels_is_upsampled_as_the_scorers_do(
    some_features: SomeFeatures, monkeypatch: pytest.MonkeyPatch, positions: int
) -> None:
    features, images = some_features(5), np.arange(5)
    monkeypatch.setattr(module, "_CACHED_BYTES", positions * 4 * 5 * 12)
    joining = Joining(features, 1)
    wholes = features.levels
    found = torch.full((64, 5, 12), float("nan"))
    for row in joining.rows(5, CPU):
        for block in row:
            parts = [joining.upsampled(level, block, whole, CPU) for level, whole in enumerate(wholes) if level > 0]
            own = weighted(features.levels[0], joining.own(Patch(0, block.row, block.columns)), slice(None), CPU)
            found[block.positions] = torch.cat([own, *parts], dim=2)
    torch.testing.assert_close(found, expected(features, 1, images), rtol=1e-5, atol=1e-5)


def test_some_pictures_in_any_order_and_of_a_subset(some_features: SomeFeatures) -> None:
    features = some_features(6)
    few = features.subset(np.array([4, 1, 5]))
    y = joined(few, 3, np.array([2, 0]))
    assert torch.equal(y, joined(features, 3, np.array([5, 4])))
    torch.testing.assert_close(y, expected(features, 3, np.array([5, 4])), rtol=1e-5, atol=1e-5)
