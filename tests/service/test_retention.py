"""Old pictures go, by age and by bytes; nothing else does, whatever fails or leaps in the meantime."""

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.errors import StoreUnavailable
from service.local_pictures import LocalPictures
from service.pictures import Pictures
from service.remote_pictures import open_remote
from service.retention import Limits, Retention
from service.storage.database import Database
from service.storage.pictures import PictureIndex, note_kept
from service.wall_clock import WallClock

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
SIZE = 1000


def content(number: int) -> bytes:
    return number.to_bytes(4, "big") * (SIZE // 4)


def name(number: int) -> str:
    return hashlib.sha256(content(number)).hexdigest()


class Line:
    """A place with pictures, the rows of them, and a clock that stands where it is put."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.place = LocalPictures(folder)
        self.database = database
        self.index = PictureIndex(database)
        self.now = NOW
        self.elapsed = 0.0

    def keep(self, number: int, *, days_ago: float) -> None:
        self.place.write(name(number), content(number))
        self.note(number, days_ago=days_ago)

    def note(self, number: int, *, days_ago: float) -> None:
        with self.database.adding() as connection:
            note_kept(connection, [(name(number), SIZE, NOW - timedelta(days=days_ago))])

    def retention(self, *, days: float | None = None, size: int | None = None) -> Retention:
        clock = WallClock(wall=lambda: self.now, monotonic=lambda: self.elapsed)
        limits = Limits(days=days, bytes=size)
        return Retention(self.place, self.index, limits=limits, seconds=3600, clock=clock)

    def kept(self) -> set[int]:
        """The numbers of the pictures that have both a file and a row."""
        found = {digest for part in self.place.walk() for digest in part}
        assert all(self.index.knows(digest) for digest in found)
        assert self.index.totals().pictures == len(found)
        return {number for number in range(1000) if name(number) in found}


@pytest.fixture
def line(tmp_path: Path, database: Database) -> Line:
    return Line(tmp_path / "pictures", database)


def test_pictures_that_are_too_old_go(line: Line) -> None:
    for number in range(10):
        line.keep(number, days_ago=number)
    retention = line.retention(days=4.5)
    retention.run()
    assert line.kept() == {0, 1, 2, 3, 4}
    stats = retention.stats
    assert (stats.pictures, stats.bytes) == (5, 5 * SIZE)
    assert (stats.removed, stats.removed_bytes) == (5, 5 * SIZE)
    retention.run()
    assert retention.stats == stats


def test_the_oldest_beyond_the_bytes_go(line: Line) -> None:
    for number in range(450):
        line.keep(number, days_ago=1 + number)
    line.retention(size=int(3.5 * SIZE)).run()
    assert line.kept() == {0, 1, 2}


def test_without_limits_nothing_goes(line: Line) -> None:
    line.keep(1, days_ago=10_000)
    line.retention().run()
    assert line.kept() == {1}


def test_what_was_just_uploaded_stays_whatever_the_limits(line: Line) -> None:
    line.keep(1, days_ago=0)
    line.retention(days=1e-6, size=1).run()
    assert line.kept() == {1}


def test_a_picture_whose_file_is_gone_already_loses_its_row(line: Line) -> None:
    line.note(1, days_ago=5)
    line.retention(days=1).run()
    assert line.index.totals().pictures == 0


def test_a_row_stays_until_its_file_is_gone(line: Line) -> None:
    for number in (1, 2):
        line.keep(number, days_ago=20 - number)
    for number in range(3, 6):
        line.keep(number, days_ago=0)
    blocked = line.place.folder / name(1)[:2] / name(1)
    blocked.unlink()
    blocked.mkdir()  # what cannot be unlinked
    retention = line.retention(days=5)
    with pytest.raises(StoreUnavailable, match="could not be removed"):
        retention.run()
    assert line.index.unknown([name(number) for number in range(1, 6)]) == [name(2)]
    assert (retention.stats.removed, retention.stats.pictures) == (1, 4)

    blocked.rmdir()
    line.now += timedelta(minutes=20)  # by then the claims have run out, and the uploads of today are not old
    line.elapsed += 1200
    retention.run()
    assert line.kept() == {3, 4, 5}
    assert retention.stats.removed == 2


def test_what_a_process_that_died_has_begun_is_finished(line: Line) -> None:
    line.keep(1, days_ago=10)
    line.keep(2, days_ago=1)
    line.index.claim(line.index.oldest(1, now=NOW), now=NOW)
    line.now += timedelta(hours=1)
    line.retention().run()  # even if there are no limits any more
    assert line.kept() == {2}


def test_pictures_without_a_row_are_found_and_go_in_their_turn(line: Line) -> None:
    for number, days_ago in ((1, 40), (2, 20)):
        line.place.write(name(number), content(number))
        moment = (NOW - timedelta(days=days_ago)).timestamp()
        os.utime(line.place.folder / name(number)[:2] / name(number), (moment, moment))
    unfinished = line.place.folder / name(1)[:2] / ".incoming-dead"
    unfinished.write_bytes(b"")
    os.utime(unfinished, (0, 0))
    retention = line.retention(days=30)
    retention.run()
    assert line.kept() == {1, 2}
    assert retention.stats.bytes == 2 * SIZE
    assert not unfinished.exists()
    retention.run()
    assert line.kept() == {2}


def test_a_clock_that_leaps_empties_nothing(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(10):
        line.keep(number, days_ago=number)
    retention = line.retention(days=30)
    retention.run()
    line.now += timedelta(days=3650)
    retention.run()
    assert len(line.kept()) == 10
    assert "leapt" in caplog.text
    line.now -= timedelta(days=3650)
    line.now += timedelta(days=2)
    line.elapsed += 2 * 86400
    retention.run()
    assert len(line.kept()) == 10


def test_a_leap_that_lasts_is_believed(line: Line) -> None:
    line.keep(1, days_ago=1)
    retention = line.retention(days=30)
    retention.run()
    line.now += timedelta(days=3650)
    for _ in range(26):
        retention.run()
        line.now += timedelta(hours=1)
        line.elapsed += 3600
    assert line.kept() == set()


def test_a_start_at_a_strange_time_empties_nothing(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    line.keep(1, days_ago=1)
    line.now += timedelta(days=3650)
    line.retention(days=30).run()
    assert line.kept() == {1}
    assert "newest kept picture is of 2030-01-30" in caplog.text


def test_a_leap_does_not_keep_the_bytes_from_their_limit(line: Line) -> None:
    line.keep(1, days_ago=1)
    line.keep(2, days_ago=2)
    line.now += timedelta(days=3650)
    line.retention(days=30, size=SIZE).run()
    assert line.kept() == {1}


def test_uploads_while_everything_is_being_removed_are_never_lost(tmp_path: Path, database: Database) -> None:
    place, index = LocalPictures(tmp_path / "pictures"), PictureIndex(database)
    pictures = Pictures(place, index)
    limits = Limits(days=1)
    retentions = [Retention(place, index, limits=limits, seconds=0.001) for _ in range(2)]  # as in two processes

    def note(number: int, *, days_ago: float) -> None:
        with database.adding() as connection:
            note_kept(connection, [(name(number), SIZE, datetime.now(UTC) - timedelta(days=days_ago))])

    with ExitStack() as stack:
        for retention in retentions:
            retention.start()
            stack.callback(retention.stop)
        for _ in range(10):
            for number in range(10):
                digest = pictures.keep(content(number))
                note(number, days_ago=0)
                assert place.read(digest) == content(number)
            for number in range(10):
                note(number, days_ago=2)  # not a week: the clock is believed
    assert sum(retention.stats.removed for retention in retentions) > 10


def test_pictures_in_an_object_store_go_too(bucket: Callable[[], str], database: Database) -> None:
    place, index = open_remote(f"s3://{bucket()}/pictures", seconds=20), PictureIndex(database)
    for number in range(12):
        place.write(name(number), content(number))
    with database.adding() as connection:  # not of the last two: those have no row
        note_kept(connection, [(name(number), SIZE, NOW - timedelta(days=number)) for number in range(10)])
    Retention(place, index, limits=Limits(days=4.5), seconds=1, clock=WallClock(wall=lambda: NOW)).run()
    assert [number for number in range(12) if place.read(name(number))] == [0, 1, 2, 3, 4, 10, 11]
    assert [number for number in range(12) if index.knows(name(number))] == [0, 1, 2, 3, 4, 10, 11]


def test_the_thread_outlives_what_fails(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    line.place.folder.parent.mkdir(exist_ok=True)
    line.keep(1, days_ago=3)
    blocked = line.place.folder / name(1)[:2] / name(1)
    blocked.unlink()
    blocked.mkdir()
    clock = WallClock(wall=lambda: line.now, monotonic=lambda: line.elapsed)
    retention = Retention(line.place, line.index, limits=Limits(days=1), seconds=0.01, clock=clock)
    retention.start()
    _until(lambda: "could not be removed" in caplog.text)
    blocked.rmdir()
    line.now += timedelta(minutes=20)
    _until(lambda: line.index.totals().pictures == 0)
    retention.stop()
    assert retention.stats.removed == 1


def _until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(3000):
        if condition():
            return
        waiting.wait(0.01)
    pytest.fail("it never happened")
