"""Lists, exports and parts: nothing is missed or repeated while a line runs, and plans stay good ones."""

import itertools
import random
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, text

from service.errors import BadCursor, UnknownPart
from service.storage.database import Database
from service.storage.inspections import Record
from service.storage.queries import Filters, Order, Queries
from service.storage.tables import INSPECTIONS, SCORE_MAPS
from service.uuid7 import uuid7

NOON = datetime(2030, 1, 2, 12, tzinfo=UTC)
Make = Callable[..., Record]
Add = Callable[..., None]


def ids(records: list[Record]) -> list[Any]:
    return [record.id for record in records]


def empty(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(delete(SCORE_MAPS))
        connection.execute(delete(INSPECTIONS))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    order=st.sampled_from(["asc", "desc"]),
    limit=st.integers(1, 4),
    filtered=st.sampled_from([{}, {"verdict": "fail"}, {"category": "plate", "station": "a"}, {"since": NOON}]),
    # What is stored before each page is read: rows that match or not, at moments in any order.
    bursts=st.lists(
        st.lists(
            st.tuples(st.sampled_from(["pass", "fail"]), st.sampled_from(["a", "b"]), st.integers(-3, 3)), max_size=5
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_pages_neither_miss_nor_repeat_while_rows_are_added(
    database: Database,
    make_record: Make,
    add: Add,
    order: Order,
    limit: int,
    filtered: dict[str, Any],
    bursts: list[list[tuple[str, str, int]]],
) -> None:
    empty(database)
    queries, filters = Queries(database), Filters(**filtered)
    stored: list[Record] = []
    before: list[Record] = []
    seen: list[Record] = []
    after = None
    pending = iter(bursts)
    for turn in itertools.count():
        for verdict, station, hours in next(pending, []):
            # The clock may be set back: moments are no order to go by.
            record = make_record(verdict=verdict, station=station, created_at=NOON + timedelta(hours=hours))
            add(database, record)
            stored.append(record)
        if turn == 0:
            before = list(stored)
        assert turn < 100
        page = queries.page(filters, order=order, limit=limit, after=after)
        assert len(page.records) <= limit
        seen += page.records
        after = page.reached
        if not page.more and (order == "desc" or turn >= len(bursts)):
            break
    wanted = stored if order == "asc" else before[::-1]
    expected = [record for record in wanted if all(_matches(record, *each) for each in filtered.items())]
    assert ids(seen) == ids(expected)


def _matches(record: Record, name: str, value: Any) -> bool:
    return record.created_at >= value if name == "since" else getattr(record, name) == value


def test_following_does_not_look_at_old_rows_again(database: Database, make_record: Make, add: Add) -> None:
    add(database, *(make_record() for _ in range(5)))
    page = Queries(database).page(Filters(verdict="fail"), order="asc", limit=2)
    assert (page.records, page.more, page.reached) == ([], False, page.newest)


def test_a_cursor_ahead_of_the_database_is_refused(database: Database, make_record: Make, add: Add) -> None:
    add(database, make_record())
    newest = Queries(database).page(Filters(), order="asc", limit=1).newest
    for order in ("asc", "desc"):
        with pytest.raises(BadCursor, match="restored"):
            Queries(database).page(Filters(), order=order, limit=1, after=newest + 1)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_window_in_time_is_half_open(database: Database, make_record: Make, add: Add, order: Order) -> None:
    moments = [NOON + timedelta(microseconds=n) for n in (0, 3, 1, -2, 2, -1)]  # in the order of their commits
    add(database, *(make_record(created_at=moment) for moment in moments))
    for since, until in itertools.product([None, *moments], repeat=2):
        page = Queries(database).page(Filters(since=since, until=until), order=order, limit=10)
        wanted = [each for each in moments if (not since or each >= since) and (not until or each < until)]
        assert [record.created_at for record in page.records] == (wanted if order == "asc" else wanted[::-1])


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("size", [1, 2, 5, 6])
def test_batches_are_all_that_was_there(
    database: Database, make_record: Make, add: Add, order: Order, size: int
) -> None:
    records = [make_record(station="ab"[n % 2], created_at=NOON - timedelta(hours=n)) for n in range(10)]
    add(database, *records)
    found = []
    for batch in Queries(database).batches(Filters(station="a", until=NOON), order=order, size=size):
        add(database, make_record(station="a", created_at=NOON - timedelta(hours=1)))
        found += batch
    wanted = records[2::2]
    assert ids(found) == ids(wanted if order == "asc" else wanted[::-1])


def test_between_batches_there_is_no_transaction(database: Database, make_record: Make, add: Add) -> None:
    if database.engine.dialect.name != "sqlite":
        pytest.skip("SQLite's log is what a reader would keep from being emptied")
    add(database, *(make_record() for _ in range(10)))
    batches = Queries(database).batches(Filters(), order="desc", size=3)
    next(batches)
    with database.engine.connect() as connection:
        busy, pages, moved = connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)")).one()
        assert (busy, pages, moved) == (0, 0, 0)
    assert sum(len(batch) for batch in batches) == 7


def test_a_part_passes_only_if_all_of_its_latest_inspections_do(
    database: Database, make_record: Make, add: Add
) -> None:
    queries = Queries(database)
    with pytest.raises(UnknownPart, match="'A'"):
        queries.part("A", limit=10)
    first = make_record(serial="A", station="top", verdict="fail")
    again = make_record(serial="A", station="top", created_at=NOON - timedelta(days=1))  # the clock was set back
    side = make_record(serial="A", station=None, verdict="fail")
    add(database, first, make_record(serial="B", verdict="fail"), make_record(serial=None))
    assert queries.part("A", limit=10).disposition == "fail"
    add(database, again)
    assert queries.part("A", limit=10).disposition == "pass"
    add(database, side)
    part = queries.part("A", limit=2)
    assert part.disposition == "fail"
    assert {record.id for record in part.latest} == {again.id, side.id}
    assert (ids(part.inspections.records), part.inspections.more) == ([side.id, again.id], True)
    add(database, replace(side, id=uuid7(NOON), verdict="pass"))
    assert queries.part("A", limit=10).disposition == "pass"
    assert replace(part, latest=[]).disposition == "fail"  # nothing known is no pass


WINDOW = {"since": NOON, "until": NOON + timedelta(hours=1)}


@pytest.mark.parametrize(
    ("filtered", "index"),
    [
        ({}, "INTEGER PRIMARY KEY"),
        ({"verdict": "fail"}, "INTEGER PRIMARY KEY"),
        ({"serial": "A"}, "ix_inspections_serial"),
        ({"category": "plate"}, "ix_inspections_category_number"),
        (WINDOW, "INTEGER PRIMARY KEY"),
        ({"category": "plate", **WINDOW}, "ix_inspections_category_number"),
    ],
)
def test_sqlite_reads_pages_in_order_from_an_index(
    database: Database, make_record: Make, add: Add, filtered: dict[str, Any], index: str
) -> None:
    if database.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL plans by what is in its tables, and those of a test are empty")
    add(database, *(make_record(created_at=NOON + timedelta(minutes=random.randrange(60))) for _ in range(20)))
    plan = plans(database, lambda: Queries(database).page(Filters(**filtered), order="desc", limit=5, after=15))[-1]
    assert re.search(rf"SEARCH inspections USING (INDEX )?{index}", plan)
    assert "TEMP B-TREE" not in plan


def test_sqlite_finds_a_window_without_reading_its_rows(database: Database) -> None:
    if database.engine.dialect.name != "sqlite":
        pytest.skip("see above")
    window = plans(database, lambda: Queries(database).page(Filters(**WINDOW), order="desc", limit=5))[1]
    assert "COVERING INDEX ix_inspections_created_at" in window


def plans(database: Database, ask: Callable[[], object]) -> list[str]:
    """How SQLite goes about each statement of a question."""
    asked: list[tuple[str, Any]] = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    ask()
    with database.engine.connect() as connection:
        found = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {each[0]}", each[1]) for each in list(asked)]
        return [" ".join(row.detail for row in rows) for rows in found]
