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


@pytest.mark.parametrize("far", [1.45, 1.55])
def test_where_the_others_are_much_alike_half_as_much_again_is_far(far: float) -> None:
    told = suspects(scores(far, spread=0.01), PATHS, threshold(70.0 * far))
    assert (told is not None) is (far == 1.55)


@pytest.mark.parametrize("far", [2.0, 3.5])
def test_where_they_are_not_it_takes_more(far: float) -> None:
    """Scores of unaligned parts: the ninth of ten is one and a half times as high as the median."""
    some = torch.cat([torch.linspace(60, 110, 59), torch.tensor([far * 85])])
    assert (suspects(some, PATHS, threshold(far * 85)) is not None) is (far == 3.5)


def test_the_one_that_sets_the_threshold_is_named() -> None:
    told = suspects(scores(1.0, 2.8), PATHS, threshold(196.0))
    assert told is not None
    assert "score far beyond the others, 1 of 60 (001.png 196; half score up to 7" in told
    assert "the threshold is 196 for their sake" in told


def test_where_the_threshold_lies_below_them_it_is_what_was_learnt_that_counts() -> None:
    told = suspects(scores(1.6, 2.8), PATHS, threshold(80.0))
    assert told is not None
    assert "2 of 60 (001.png 196, 000.png 112; " in told
    assert "defects like theirs may be learnt as good" in told


@pytest.mark.parametrize("bad", [1, 6, 14])
def test_all_are_found_though_some_may_be_a_fifth(bad: int) -> None:
    """More than a tenth reach as far as nine of ten seem to, but not as far as three of four do."""
    told = suspects(scores(*[3.0] * (bad - 1), 4.0), PATHS, threshold(280.0))
    assert told is not None
    assert f"{bad} of 60 ({bad - 1:03d}.png 280" in told
    assert ("(013.png 280, 000.png 210, 001.png 210, ...; " in told) is (bad == 14)


def test_what_is_said_of_the_others_holds() -> None:
    told = suspects(torch.cat([torch.arange(101.0, 120.0), torch.tensor([300.0])]), PATHS[:20], threshold(300.0))
    assert told is not None
    assert "half score up to 110, three of four up to 115" in told


def test_pictures_of_one_name_are_told_apart() -> None:
    paths = [*PATHS[:59], Path("other/003.png")]
    some = scores(1.0, 2.5, 1.0, 3.0)
    some[59] = 350
    told = suspects(some, paths, threshold(350.0))
    assert told is not None
    assert "(other/003.png 350, good/003.png 210, 001.png 175; " in told


def test_of_a_few_pictures_nothing_is_said() -> None:
    assert suspects(scores(3.0)[:19], PATHS[:19], threshold(210.0)) is None
    assert suspects(scores(3.0)[:20], PATHS[:20], threshold(210.0)) is not None


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_scores_that_are_all_the_same_are_near(value: float) -> None:
    assert suspects(torch.full((60,), value), PATHS, threshold(1.0)) is None
