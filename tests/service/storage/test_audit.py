"""Reading the audit trail, newest first."""

from datetime import UTC, datetime, timedelta

import pytest

from service.storage.audit import Audit, Change, Noted, Wanted, note
from service.storage.database import Database


@pytest.fixture
def audit(database: Database) -> Audit:
    add(database, *(Change(actor, "activate", f"category {n}") for n, actor in enumerate(["ann", "bob"] * 3)))
    return Audit(database)


def add(database: Database, *changes: Change) -> None:
    with database.transaction() as connection:
        for each in changes:
            note(connection, each)


def subjects(found: list[Noted]) -> str:
    return "".join(each.subject.removeprefix("category ") for each in found)


def test_newest_first_and_no_more_than_asked_for(audit: Audit) -> None:
    assert subjects(audit.find(Wanted(), limit=10)) == "543210"
    assert subjects(audit.find(Wanted(), limit=2)) == "54"
    assert subjects(audit.find(Wanted(actor="bob"), limit=10)) == "531"
    assert audit.find(Wanted(actor="b%"), limit=10) == []


def test_a_page_follows_where_the_last_ended_whatever_was_added(audit: Audit, database: Database) -> None:
    first = audit.find(Wanted(), limit=2)
    add(database, Change("ann", "activate", "category 6"))
    assert subjects(audit.find(Wanted(before=first[-1].id), limit=10)) == "3210"


def test_times(audit: Audit) -> None:
    moments = [each.at for each in audit.find(Wanted(), limit=10)]
    assert all(abs(datetime.now(UTC) - moment) < timedelta(minutes=1) for moment in moments)
    newest = moments[0]
    assert subjects(audit.find(Wanted(since=newest), limit=1)) == "5"  # from that moment on
    assert "5" not in subjects(audit.find(Wanted(until=newest), limit=10))  # before it
    assert audit.find(Wanted(since=newest + timedelta(seconds=1)), limit=10) == []
