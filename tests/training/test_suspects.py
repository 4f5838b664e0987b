from pathlib import Path

import numpy as np
import pytest
import torch

from models.manifest import ThresholdRecord
from training.suspects import suspects

PATHS = [Path(f"good/{index:03d}.png") for index in range(60)]


def scores(*far: float, median: float = 70.0, spread: float = 0.08) -> torch.Tensor:
    """(60,): of which most lie about the median, and the first are as `far`, times the median."""
    some = median * (1 + spread * np.random.default_rng(0).normal(size=60))
    some[: len(far)] = median * np.array(far)
    return torch.tensor(some, dtype=torch.float32)


def threshold(value: float) -> ThresholdRecord:
    return ThresholdRecord(rule="conformal", value=value, false_reject_rate=0.02, pixel=1.0)


@pytest.mark.parametrize("spread", [0.001, 0.08, 0.2])
def test_pictures_that_are_all_good_are_not_named(spread: float) -> None:
    some = scores(spread=spread)
    assert suspects(some, PATHS, threshold(float(some.max()))) is None


def test_the_one_that_sets_the_threshold_is_named() -> None:
    told = suspects(scores(1.0, 2.8), PATHS, threshold(196.0))
    assert told is not None
    assert "score far beyond the others, 1 of 60 (001.png 196; half score below 7" in told
    assert "the threshold is 196 for their sake alone" in told


def test_where_the_threshold_lies_below_them_it_is_what_was_learnt_that_counts() -> None:
    told = suspects(scores(1.6, 2.8), PATHS, threshold(80.0))
    assert told is not None
    assert "2 of 60 (001.png 196, 000.png 112; " in told
    assert "defects like theirs are learnt as good" in told


def test_the_farthest_are_named_though_a_tenth_and_more_are_far() -> None:
    told = suspects(scores(*[3.0] * 8, 4.0, 2.5), PATHS, threshold(280.0))
    assert told is not None
    assert "10 of 60 (008.png 280, 000.png 210, 001.png 210, ...; " in told


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_scores_that_are_all_the_same_are_near(value: float) -> None:
    assert suspects(torch.full((60,), value), PATHS, threshold(1.0)) is None
