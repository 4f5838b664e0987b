"""Plans of arrivals."""

import itertools

import pytest

from service.load import arrivals


def test_constant_is_even_and_ends_in_time() -> None:
    due = list(arrivals.constant(50, 2))
    assert len(due) == 100
    assert due[0] == 0
    assert due[-1] < 2
    assert [b - a for a, b in itertools.pairwise(due)] == pytest.approx([0.02] * 99)


def test_poisson_has_the_rate_and_irregular_gaps() -> None:
    due = list(arrivals.poisson(50, 200, seed=3))
    gaps = [b - a for a, b in itertools.pairwise(due)]
    mean = sum(gaps) / len(gaps)
    assert due[-1] < 200
    assert mean == pytest.approx(1 / 50, rel=0.05)
    # What is exponential has its mean for a deviation, and exceeds its mean with a probability of 1/e.
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.1)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)
    assert due == list(arrivals.poisson(50, 200, seed=3))
    assert due != list(arrivals.poisson(50, 200, seed=4))


@pytest.mark.parametrize("plan", [arrivals.constant(0.1, 1), arrivals.poisson(0.001, 1, seed=0)])
def test_there_is_always_one(plan: object) -> None:
    assert list(plan) == [0]  # type: ignore[call-overload]
