"""Looking for inspections: pages of a list, batches of an export, everything about one part.

All of it goes by `number`, the order of commits: what has been read stays read while others add rows, whatever
the clock does. A transaction lasts for one page, so that no reader ever keeps SQLite from emptying its log.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, func, select

from service.errors import BadCursor, UnknownPart
from service.storage.database import Database
from service.storage.inspections import RECORD, Record
from service.storage.tables import INSPECTIONS

Order = Literal["asc", "desc"]
_NUMBER = INSPECTIONS.c.number
_BATCH = 1000


@dataclass(frozen=True)
class Filters:
    """Which inspections: all that agree with whatever is not None, made in the half-open [since, until)."""

    serial: str | None = None
    category: str | None = None
    verdict: Literal["pass", "fail"] | None = None
    station: str | None = None
    version: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def clauses(self) -> list[ColumnElement[bool]]:
        """The same in SQL."""
        names = ("serial", "category", "verdict", "station", "version")
        wanted = {name: getattr(self, name) for name in names}
        equal = [INSPECTIONS.c[name] == value for name, value in wanted.items() if value is not None]
        return equal + self._window()

    def numbers(self, connection: Connection) -> tuple[int, int]:
        """The first and the last number of the window in time; (1, 0) if it is empty.

        Read from the index of moments alone. The tables are then searched by number: by its moments SQLite would
        sort the whole window for each page, or, given a category too, read all of that category.
        """
        # Bare, PostgreSQL may look for both in the order of numbers, row by row, until one lies in the window.
        bare = _NUMBER + 0
        first, last = connection.execute(select(func.min(bare), func.max(bare)).where(*self._window())).one()
        return (1, 0) if first is None else (first, last)

    def _window(self) -> list[ColumnElement[bool]]:
        since = [] if self.since is None else [INSPECTIONS.c.created_at >= self.since]
        return since if self.until is None else [*since, INSPECTIONS.c.created_at < self.until]


@dataclass(frozen=True)
class Page:
    """Inspections in the order asked for. All matches up to the number `reached`, in that order, have been given.

    `newest` is the greatest number there was: whoever goes on behind it, ascending, sees what came afterwards.
    """

    records: list[Record]
    reached: int
    newest: int
    more: bool


@dataclass(frozen=True)
class Part:
    """What is known of one part: its latest inspection for each category and station, and all, newest first."""

    serial: str
    latest: list[Record]
    inspections: Page

    @property
    def disposition(self) -> Literal["pass", "fail"]:
        """A pass if there are latest inspections and every one of them is a pass."""
        return "pass" if self.latest and all(record.verdict == "pass" for record in self.latest) else "fail"


class Queries:
    """Inspections in the database, to be looked for."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, filters: Filters, *, order: Order, limit: int, after: int | None = None) -> Page:
        """At most `limit` inspections behind the number `after`: greater ones if ascending, else smaller ones.

        Raises BadCursor if `after` is a number that was never given.
        """
        with self._database.searching() as connection:
            # Read first: whatever has a number up to this one is seen by all that is read afterwards.
            newest = _newest(connection)
            if after is not None and after > newest:
                raise BadCursor(
                    "This cursor is ahead of the database, as if that had been replaced or restored from a backup. "
                    "Begin without a cursor."
                )
            first, last = _bounds(connection, filters, order=order, after=after, newest=newest)
            found = _read(connection, filters, order=order, first=first, last=last, limit=limit + 1)
        more = len(found) > limit
        end = newest if order == "asc" else 0
        return Page([record for _, record in found[:limit]], found[limit - 1][0] if more else end, newest, more)

    def batches(self, filters: Filters, *, order: Order, size: int = _BATCH) -> Iterator[list[Record]]:
        """All inspections that were there when the first batch is asked for; each batch is a transaction of its own."""
        with self._database.searching() as connection:
            first, last = _bounds(connection, filters, order=order, after=None, newest=_newest(connection))
        while first <= last:
            with self._database.searching() as connection:
                found = _read(connection, filters, order=order, first=first, last=last, limit=size)
            if found:
                yield [record for _, record in found]
            if len(found) < size:
                return
            reached = found[-1][0]
            first, last = (reached + 1, last) if order == "asc" else (first, reached - 1)

    def part(self, serial: str, *, limit: int) -> Part:
        """One part, with its `limit` newest inspections. Raises UnknownPart."""
        filters = Filters(serial=serial)
        groups = (INSPECTIONS.c.category, INSPECTIONS.c.station)
        numbers = select(func.max(_NUMBER)).where(*filters.clauses()).group_by(*groups)
        latest = select(_NUMBER, *RECORD).where(_NUMBER.in_(numbers)).order_by(*groups)
        with self._database.searching() as connection:
            rows = connection.execute(latest).all()
            if not rows:
                raise UnknownPart(
                    f"No part with the serial {serial!r} was ever inspected. Serials are compared exactly, "
                    "capitals and blanks included."
                )
            newest = max(row.number for row in rows)  # nothing is listed that the disposition does not know
            found = _read(connection, filters, order="desc", first=1, last=newest, limit=limit + 1)
        more = len(found) > limit
        page = Page([record for _, record in found[:limit]], found[limit - 1][0] if more else 0, newest, more)
        return Part(serial, [_record(row) for row in rows], page)


def _newest(connection: Connection) -> int:
    return connection.execute(select(func.max(_NUMBER))).scalar_one() or 0


def _bounds(
    connection: Connection, filters: Filters, *, order: Order, after: int | None, newest: int
) -> tuple[int, int]:
    """The numbers to look among, both included."""
    first, last = 1, newest
    if after is not None:
        first, last = (after + 1, newest) if order == "asc" else (1, after - 1)
    # The side that a cursor bounds needs no other bound, and a serial has few inspections anyway.
    sides = {filters.since, filters.until}
    if after is not None:
        sides = {filters.until} if order == "asc" else {filters.since}
    if filters.serial is not None or sides == {None}:
        return first, last
    earliest, latest = filters.numbers(connection)
    return max(first, earliest), min(last, latest)


def _read(
    connection: Connection, filters: Filters, *, order: Order, first: int, last: int, limit: int
) -> list[tuple[int, Record]]:
    """Inspections with their numbers."""
    wanted = select(_NUMBER, *RECORD).where(*filters.clauses(), _NUMBER.between(first, last)).limit(limit)
    rows = connection.execute(wanted.order_by(_NUMBER if order == "asc" else _NUMBER.desc()))
    return [(row.number, _record(row)) for row in rows]


def _record(row: Sequence[Any]) -> Record:
    return Record(*row[1:])  # RECORD has the order of its fields
