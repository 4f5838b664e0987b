"""Conformal thresholds and p-values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import Calibration
from models.errors import ScoreError

score_sets = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60)
alphas = st.floats(1e-6, 1 - 1e-6)


@pytest.mark.parametrize(
    ("alpha", "n", "rank"),
    [
        (0.05, 99, 95),
        (0.29, 99, 71),  # 0.29 * 100 < 29 in floats
        (1 - 0.93, 99, 93),
        (0.07, 99, 93),  # 0.93 * 100 > 93 in floats
        (0.1, 9, 9),
        (0.02, 320, 315),
        (0.5, 1, 1),
    ],
)
def test_threshold_is_the_ranked_score_despite_floats(alpha: float, n: int, rank: int) -> None:
    assert Calibration(torch.arange(1, n + 1).float().flip(0)).threshold(alpha) == rank


def test_threshold_below_the_attainable_rate_is_the_largest_score() -> None:
    calibration = Calibration(np.array([3.0, 1.0, 2.0]))
    assert calibration.attainable_alpha == 0.25
    assert calibration.threshold(0.25) == 3
    assert calibration.threshold(0.01) == 3
    assert calibration.threshold(1e-15) == 3
    assert calibration.threshold(1 - 1e-15) == 1


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 1.5, float("nan"), float("inf")])
def test_rates_outside_the_open_interval_are_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Calibration(torch.ones(3)).threshold(alpha)


@pytest.mark.parametrize("scores", [[], [[1.0]], [1.0, float("nan")], [float("inf")], [1e300]], ids=str)
def test_useless_score_sets_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Calibration(np.array(scores))


def test_scores_are_sorted_float32_and_cannot_be_changed() -> None:
    given_scores = np.array([2.0, 0.5, 1.0])
    given_scores.flags.writeable = False
    calibration = Calibration(given_scores[::-1])
    assert calibration.scores.dtype == torch.float32
    assert calibration.scores.tolist() == [0.5, 1, 2]
    calibration.scores.zero_()
    assert calibration.threshold(0.25) == 2
    tensor = torch.tensor([1.0, 2.0])
    from_tensor = Calibration(tensor)
    tensor.zero_()
    assert from_tensor.scores.tolist() == [1, 2]
    with pytest.raises(AttributeError):
        calibration.scores = torch.zeros(3)  # type: ignore[misc]


def test_p_value_counts_the_scores_as_high() -> None:
    calibration = Calibration(torch.tensor([1.0, 2.0, 2.0, 3.0]))
    assert calibration.p_value(0.5) == 1
    assert calibration.p_value(2.0) == 4 / 5
    assert calibration.p_value(2.5) == 2 / 5
    assert calibration.p_value(9.0) == 1 / 5


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_has_no_p_value(score: float) -> None:
    with pytest.raises(ScoreError, match="no verdict"):
        Calibration(torch.ones(3)).p_value(score)


@given(score_sets, alphas, alphas)
def test_threshold_falls_as_the_rate_rises(scores: list[float], one: float, other: float) -> None:
    calibration = Calibration(np.array(scores))
    assert calibration.threshold(min(one, other)) >= calibration.threshold(max(one, other))


@given(score_sets, alphas)
def test_threshold_is_one_of_the_scores(scores: list[float], alpha: float) -> None:
    threshold = Calibration(np.array(scores)).threshold(alpha)
    assert math.isfinite(threshold)
    assert threshold in scores


@given(score_sets, st.integers(1, 99), st.floats(-1e6, 1e6))
def test_failing_and_a_small_p_value_are_one_statement(scores: list[float], percent: int, score: float) -> None:
    calibration, alpha = Calibration(np.array(scores)), percent / 100
    for candidate in (score, scores[0], math.nextafter(scores[0], math.inf)):
        if alpha >= calibration.attainable_alpha:
            fails = candidate > calibration.threshold(alpha)
            assert fails == (calibration.p_value(candidate) <= alpha + 1e-12)


@given(score_sets, st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_p_value_falls_as_the_score_rises(scores: list[float], one: float, other: float) -> None:
    calibration = Calibration(np.array(scores))
    assert calibration.p_value(min(one, other)) >= calibration.p_value(max(one, other))
    assert calibration.attainable_alpha <= calibration.p_value(one) <= 1


@settings(max_examples=12, deadline=None)
@given(n=st.integers(5, 60), percent=st.integers(2, 50), seed=st.integers(0, 1000))
def test_exchangeable_good_parts_are_rejected_at_the_promised_rate(n: int, percent: int, seed: int) -> None:
    alpha, trials = percent / 100, 1500
    draws = np.random.default_rng(seed).lognormal(size=(trials, n + 1)).astype(np.float32)
    rejected = sum(float(draw[-1]) > Calibration(draw[:-1]).threshold(alpha) for draw in draws)
    # The exact rate: floor(alpha (n+1)) of n+1 ranks are rejected, or one where that is none.
    expected = max(1, (percent * (n + 1)) // 100) / (n + 1)
    assert abs(rejected / trials - expected) < 5 * math.sqrt(expected * (1 - expected) / trials)
