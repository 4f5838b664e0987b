"""The token bucket, by a clock that the test moves."""

import pytest

from service.access.rate_limit import Bucket


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_second_s_worth_may_come_at_once_and_then_one_by_one(clock: Clock) -> None:
    bucket = Bucket(4.0, clock=clock)
    assert [bucket.take() for _ in range(4)] == [0.0] * 4
    assert bucket.take() == pytest.approx(0.25)
    clock.now += 0.25
    assert bucket.take() == 0.0
    assert bucket.take() == pytest.approx(0.25)


def test_waiting_fills_it_but_never_over_the_brim(clock: Clock) -> None:
    bucket = Bucket(4.0, clock=clock)
    clock.now += 3600
    assert sum(bucket.take() == 0.0 for _ in range(10)) == 4


def test_less_than_one_a_second(clock: Clock) -> None:
    bucket = Bucket(0.1, clock=clock)
    assert bucket.take() == 0.0
    assert bucket.take() == pytest.approx(10.0)
    clock.now += 4
    assert bucket.take() == pytest.approx(6.0)
    clock.now += 6.001
    assert bucket.take() == 0.0


def test_what_is_refused_costs_nothing(clock: Clock) -> None:
    bucket = Bucket(1.0, clock=clock)
    bucket.take()
    for _ in range(100):
        bucket.take()
    clock.now += 1.001
    assert bucket.take() == 0.0


def test_what_is_owed_is_made_up_for_first(clock: Clock) -> None:
    bucket = Bucket(4.0, clock=clock)
    assert bucket.take() == 0.0
    bucket.owe(7)
    assert bucket.take() == pytest.approx(1.25)
    clock.now += 1.25
    assert bucket.take() == 0.0
