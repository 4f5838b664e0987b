"""Counts by hour and day, on both databases."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from models.artifact import Artifact
from service.storage.artifacts import Artifacts
from service.storage.database import Database
from service.storage.inspections import Record
from service.storage.queries import Filters
from service.storage.statistics import Count, Statistics

NOON = datetime(2030, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = Filters(since=NOON - 12 * HOUR, until=NOON + 12 * HOUR)


def test_inspections_are_counted_in_the_hour_that_they_were_made_in(
    database: Database, make_record: Callable[..., Record], add: Callable[..., None]
) -> None:
    tick = timedelta(microseconds=1)
    add(
        database,
        make_record(created_at=NOON, score=0.25),
        make_record(created_at=NOON + HOUR - tick, score=1.5, verdict="fail", p_value=1 / 25),
        make_record(created_at=NOON - tick, score=0.75),
        make_record(created_at=NOON + HOUR, score=0.5),
        make_record(created_at=NOON + 12 * HOUR),  # the window's end is no part of it
    )
    (tally,) = Statistics(database).tallies(DAY, width="hour")
    assert tally.buckets == {
        NOON - HOUR: Count(1, 0, 0.75),
        NOON: Count(2, 1, 1.75),
        NOON + HOUR: Count(1, 0, 0.5),
    }
    assert list(tally.buckets) == sorted(tally.buckets)
    assert tally.total == Count(4, 1, 3.0)
    assert (tally.total.reject_rate, tally.total.mean_score) == (0.25, 0.75)
    assert tally.p_values == {12 / 25: 3, 1 / 25: 1}
    (tally,) = Statistics(database).tallies(DAY, width="day")
    assert tally.buckets == {NOON - 12 * HOUR: Count(4, 1, 3.0)}


def test_versions_are_counted_apart_and_filters_hold(
    database: Database, make_record: Callable[..., Record], add: Callable[..., None], artifact: Artifact
) -> None:
    other = artifact.manifest.model_copy(update={"category": "cup"})
    Artifacts(database).remember([("0" * 12, artifact.manifest), ("f" * 12, other)])
    add(
        database,
        make_record(),
        make_record(version="0" * 12, station="a"),
        make_record(version="f" * 12, category="cup", station="a"),
        make_record(version="f" * 12, category="cup", station="b"),
    )
    statistics = Statistics(database)

    def counted(**filters: str) -> list[tuple[str, str, int]]:
        window = Filters(since=NOON - HOUR, until=NOON + HOUR, **filters)
        return [(each.category, each.version, each.total.inspected) for each in statistics.tallies(window, width="day")]

    plates = sorted([("plate", "0" * 12, 1), ("plate", artifact.version, 1)])
    assert counted() == [("cup", "f" * 12, 2), *plates]
    assert counted(category="plate") == plates
    assert counted(station="a") == [("cup", "f" * 12, 1), ("plate", "0" * 12, 1)]
    assert counted(category="nowhere") == []
    assert statistics.tallies(Filters(since=NOON + HOUR, until=NOON + 2 * HOUR), width="hour") == []
