"""A clock that leaps is doubted for a day of running."""

from datetime import UTC, datetime, timedelta

import pytest

from service.wall_clock import WallClock

DAY = 86400.0


class Times:
    """What the two clocks of a machine show."""

    def __init__(self) -> None:
        self.wall = datetime(2030, 1, 1, tzinfo=UTC)
        self.monotonic = 1000.0

    def pass_(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.monotonic += seconds


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def clock(times: Times) -> WallClock:
    return WallClock(wall=lambda: times.wall, monotonic=lambda: times.monotonic)


def test_time_that_passes_is_no_leap(times: Times, clock: WallClock) -> None:
    for seconds in (1, 300, 10 * DAY):
        times.pass_(seconds)
        assert clock.now() == times.wall
        assert clock.trusted


@pytest.mark.parametrize("leap", [timedelta(days=40), timedelta(days=-40)])
def test_a_leap_is_doubted_for_a_day(
    times: Times, clock: WallClock, leap: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    times.wall += leap
    assert clock.now() == times.wall
    assert not clock.trusted
    assert f"leapt by {leap.days:+d}.0 days" in caplog.text
    for _ in range(23):
        times.pass_(3600)
        clock.now()
        assert not clock.trusted
    times.pass_(3601)
    clock.now()
    assert clock.trusted
    assert len(caplog.records) == 1


def test_a_correction_is_no_leap(times: Times, clock: WallClock) -> None:
    times.wall += timedelta(hours=2)
    clock.now()
    assert clock.trusted
