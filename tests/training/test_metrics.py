import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import mannwhitneyu
from torchmetrics.functional.classification import binary_auroc

from training.metrics import aupro, image_auroc, pixel_auroc, roc


def scored(seed: int, *, n: int = 60, levels: int = 10**6) -> tuple[np.ndarray, np.ndarray]:
    """Scores in `levels` steps (few of them: many ties), higher where the truth is positive."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) < n // 3
    rng.shuffle(truth)
    return np.floor((rng.random(n) + 0.3 * truth) * levels).astype(np.float32), truth


@pytest.mark.parametrize("levels", [2, 5, 10**6])
@pytest.mark.parametrize("seed", range(5))
def test_auroc_agrees_with_others_with_and_without_ties(seed: int, levels: int) -> None:
    scores, truth = scored(seed, levels=levels)
    found = image_auroc(scores, truth)
    wins = mannwhitneyu(scores[truth], scores[~truth]).statistic
    assert found == pytest.approx(wins / truth.sum() / (~truth).sum(), abs=1e-12)
    theirs = binary_auroc(torch.from_numpy(scores) / 2**21, torch.from_numpy(truth).long())
    assert found == pytest.approx(float(theirs), abs=1e-5)
    rates = roc(scores, truth)
    assert found == pytest.approx(np.trapezoid(rates[1], rates[0]), abs=1e-12)


def test_auroc_of_known_cases() -> None:
    truth = np.array([False, False, True, True])
    assert image_auroc(np.array([1.0, 2.0, 3.0, 4.0]), truth) == 1.0
    assert image_auroc(np.array([4.0, 3.0, 2.0, 1.0]), truth) == 0.0
    assert image_auroc(np.array([1.0, 1.0, 1.0, 1.0]), truth) == 0.5
    assert image_auroc(np.array([1.0, 3.0, 2.0, 4.0]), truth) == 0.75


def test_pixels_of_all_images_count_together() -> None:
    scores, truth = scored(3, n=5 * 6 * 7)
    assert pixel_auroc(scores.reshape(5, 6, 7), truth.reshape(5, 6, 7)) == image_auroc(scores, truth)


def test_what_is_not_defined_is_none() -> None:
    scores = np.arange(4.0)
    maps = np.ones((2, 3, 3), np.float32)
    for truth in (np.zeros(4, bool), np.ones(4, bool)):
        assert image_auroc(scores, truth) is None
    for masks in (np.zeros((2, 3, 3), bool), np.ones((2, 3, 3), bool)):
        assert pixel_auroc(maps, masks) is None
        assert aupro(maps, masks) is None


def reference_aupro(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """The definition, threshold by threshold, with the curve cut at the limit by linear interpolation."""
    regions = []
    for index, mask in enumerate(masks):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(index, labels == label) for label in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        overlap = np.mean([found[index][region].mean() for index, region in regions])
        points.append((found[~masks].mean(), overlap))
    rates, overlaps = np.array(points).T
    inside = rates <= limit
    # Points on one vertical line: np.interp at the limit must see the last of those within it.
    beyond = np.argmax(~inside) if (~inside).any() else len(rates) - 1
    last = np.interp(limit, rates[beyond - 1 : beyond + 1], overlaps[beyond - 1 : beyond + 1])
    return float(np.trapezoid([*overlaps[inside], last], [*rates[inside], limit]) / limit)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([3, 12, 10**6]),
    st.sampled_from([0.05, 0.3, 0.77, 1.0]),
    st.floats(0.02, 0.5),
)
def test_aupro_is_its_definition(seed: int, levels: int, limit: float, share: float) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((3, 8, 9)) < share
    maps = np.floor((rng.random(masks.shape) + 0.5 * masks) * levels).astype(np.float32)
    if not masks.any() or masks.all():
        return
    assert aupro(maps, masks, limit=limit) == pytest.approx(reference_aupro(maps, masks, limit), abs=1e-9)


def test_aupro_of_known_cases() -> None:
    masks = np.zeros((2, 10, 10), bool)
    masks[0, :4, :4] = True
    masks[0, 8, 8] = True  # one pixel, as important as the sixteen
    assert aupro(masks.astype(np.float32), masks) == 1.0
    assert aupro(-masks.astype(np.float32), masks) == 0.0
    only_the_large_one = masks.copy()
    only_the_large_one[0, 8, 8] = False
    # Half of the regions at once; the other half rises along the diagonal of chance, up to 0.3 at the limit.
    assert aupro(only_the_large_one.astype(np.float32), masks) == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_regions_touching_at_a_corner_are_one() -> None:
    masks = np.zeros((1, 6, 6), bool)
    masks[0, 1, 1] = masks[0, 2, 2] = masks[0, 5, 0] = True
    maps = np.zeros((1, 6, 6), np.float32)
    maps[0, 5, 0] = 1.0
    chance = 0.3 / 2
    assert aupro(maps, masks) == pytest.approx(0.5 + 0.5 * chance)


def test_a_whole_test_set_takes_seconds() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((160, 224, 224), dtype=np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[:119, 60:80, 60:80] = True
    started = time.perf_counter()
    assert pixel_auroc(maps, masks) == pytest.approx(0.5, abs=0.01)
    assert aupro(maps, masks) == pytest.approx(0.15, abs=0.01)
    assert time.perf_counter() - started < 20  # measured: 1.5 s on one core
