"""The rows of kept pictures: who uploads one and who removes it do not get in each other's way."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from service.errors import StoreUnavailable
from service.storage.database import Database
from service.storage.pictures import GRACE, LEASE, KeptPicture, PictureIndex, note_kept
from service.storage.tables import PICTURES

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture
def index(database: Database) -> PictureIndex:
    return PictureIndex(database)


def keep(database: Database, *kept: tuple[str, int, datetime]) -> None:
    with database.adding() as connection:
        note_kept(connection, kept)


def rows(database: Database) -> dict[str, tuple[int, datetime]]:
    with database.reading() as connection:
        return {row.sha256: (row.bytes, row.kept_at) for row in connection.execute(select(PICTURES))}


def test_a_picture_has_one_row_of_its_last_upload(database: Database, index: PictureIndex) -> None:
    keep(database)
    keep(database, (A, 10, NOW - DAY), (B, 20, NOW), (A, 10, NOW - DAY / 2))
    keep(database, (A, 10, NOW))
    assert rows(database) == {A: (10, NOW), B: (20, NOW)}
    assert index.totals().bytes == 30
    assert index.knows(A)
    assert not index.knows(C)


def test_a_note_is_part_of_its_transaction(database: Database) -> None:
    with database.adding() as connection:
        note_kept(connection, [(A, 10, NOW)])
        connection.rollback()
    assert rows(database) == {}


def test_the_oldest_come_first_and_none_that_was_just_uploaded(database: Database, index: PictureIndex) -> None:
    keep(database, (A, 1, NOW - DAY), (B, 2, NOW - 2 * DAY), (C, 3, NOW - GRACE / 2))
    assert [each.sha256 for each in index.oldest(10, now=NOW)] == [B, A]
    assert [each.sha256 for each in index.oldest(1, now=NOW)] == [B]
    assert [each.sha256 for each in index.oldest(10, now=NOW, before=NOW - 1.5 * DAY)] == [B]


def test_a_clock_that_was_set_back_does_not_make_pictures_immortal(database: Database, index: PictureIndex) -> None:
    keep(database, (A, 1, NOW + 365 * DAY))
    assert [each.sha256 for each in index.oldest(10, now=NOW)] == [A]


def test_only_one_can_claim_a_picture(database: Database, index: PictureIndex) -> None:
    keep(database, (A, 1, NOW - DAY), (B, 2, NOW - DAY))
    seen = index.oldest(10, now=NOW)
    assert {each.sha256 for each in index.claim(seen, now=NOW)} == {A, B}
    assert index.claim(seen, now=NOW) == []
    assert not index.knows(A)
    assert index.oldest(10, now=NOW) == []
    assert index.totals().newest is None
    assert index.abandoned(10, now=NOW + LEASE / 2) == []


def test_a_picture_that_was_uploaded_again_cannot_be_claimed(database: Database, index: PictureIndex) -> None:
    keep(database, (A, 1, NOW - DAY), (B, 2, NOW - DAY))
    seen = index.oldest(10, now=NOW)
    index.renew(A, at=NOW)
    assert [each.sha256 for each in index.claim(seen, now=NOW)] == [B]
    assert rows(database)[A] == (1, NOW)


def test_an_upload_waits_until_its_picture_has_gone(database: Database, index: PictureIndex) -> None:
    keep(database, (A, 1, NOW - DAY))
    claimed = index.claim(index.oldest(1, now=NOW), now=NOW)
    with pytest.raises(StoreUnavailable, match="being removed"):
        index.renew(A, at=NOW + timedelta(seconds=1))
    uploading = threading.Thread(target=index.renew, args=(A,), kwargs={"at": NOW + timedelta(seconds=1)})
    uploading.start()
    uploading.join(timeout=0.2)
    assert uploading.is_alive()
    index.forget(claimed)
    uploading.join()
    assert rows(database) == {}


def test_a_claim_of_a_process_that_died_is_taken_over(database: Database, index: PictureIndex) -> None:
    keep(database, (A, 1, NOW - DAY), (B, 2, NOW - DAY))
    dead = index.claim(index.oldest(2, now=NOW), now=NOW)
    later = NOW + 2 * LEASE
    index.renew(A, at=later)
    assert rows(database)[A] == (1, later)
    again = index.claim(index.abandoned(10, now=later), now=later)
    assert [each.sha256 for each in again] == [B]
    index.forget(dead)  # it was only slow: what is no longer its own it cannot delete
    assert set(rows(database)) == {A, B}
    index.forget(again)
    assert set(rows(database)) == {A}


def test_adopting_changes_nothing_that_has_a_row(database: Database, index: PictureIndex) -> None:
    keep(database, (A, 1, NOW))
    assert index.unknown([A, B]) == [B]
    old = datetime(1901, 1, 1, tzinfo=UTC)
    index.adopt([KeptPicture(A, 99, NOW - DAY), KeptPicture(B, 2, old)])
    index.adopt([])
    assert rows(database)[A] == (1, NOW)
    assert [each.sha256 for each in index.oldest(10, now=NOW)] == [B]
