"""Counts over a window of time: inspected, rejected, mean score by hour or day, and how often each p-value occurred.

The database does the counting. Hours and days are UTC's; those without an inspection do not occur.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import BigInteger, Column, ColumnElement, Connection, case, cast, extract, func, select

from service.storage.database import Database
from service.storage.queries import Filters
from service.storage.tables import INSPECTIONS

Width = Literal["hour", "day"]
SECONDS: Mapping[Width, int] = {"hour": 3600, "day": 86400}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION: tuple[Column[str], Column[str]] = (INSPECTIONS.c.category, INSPECTIONS.c.version)


@dataclass(frozen=True)
class Count:
    """How many parts were inspected and rejected, and the sum of their scores."""

    inspected: int
    rejected: int
    score: float

    @property
    def reject_rate(self) -> float:
        """The share of parts that failed."""
        return self.rejected / self.inspected

    @property
    def mean_score(self) -> float:
        """The parts' mean score."""
        return self.score / self.inspected


@dataclass(frozen=True)
class Tally:
    """What one version of a category has judged: by the start of each hour or day, and by p-value."""

    category: str
    version: str
    buckets: Mapping[datetime, Count]  # ascending
    p_values: Mapping[float, int]

    @property
    def total(self) -> Count:
        """Over the whole window."""
        counts = self.buckets.values()
        return Count(
            sum(count.inspected for count in counts),
            sum(count.rejected for count in counts),
            sum(count.score for count in counts),
        )


class Statistics:
    """Inspections in the database, to be counted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tallies(self, filters: Filters, *, width: Width) -> list[Tally]:
        """A tally for each version of each category that has judged something, in their order."""
        with self._database.reading() as connection:
            first, last = filters.numbers(connection)
            wanted = [*filters.clauses(), INSPECTIONS.c.number.between(first, last)]
            buckets = _buckets(connection, wanted, seconds=SECONDS[width])
            p_values = _p_values(connection, wanted)
        return [Tally(*key, buckets[key], p_values[key]) for key in sorted(buckets)]


_ByVersion = Mapping[tuple[str, str], dict[datetime, Count]]


def _buckets(connection: Connection, wanted: list[ColumnElement[bool]], *, seconds: int) -> _ByVersion:
    rejected = func.sum(case((INSPECTIONS.c.verdict == "fail", 1), else_=0))
    bucket = _bucket(connection.dialect.name, seconds).label("bucket")
    found = (
        select(*_VERSION, bucket, func.count(), rejected, func.sum(INSPECTIONS.c.score))
        .where(*wanted)
        .group_by(*_VERSION, bucket)
        .order_by(*_VERSION, bucket)
    )
    counts: _ByVersion = defaultdict(dict)
    for category, version, index, inspected, failed, score in connection.execute(found):
        counts[category, version][_EPOCH + timedelta(seconds=index * seconds)] = Count(inspected, failed, score)
    return counts


def _p_values(connection: Connection, wanted: list[ColumnElement[bool]]) -> Mapping[tuple[str, str], dict[float, int]]:
    found = select(*_VERSION, INSPECTIONS.c.p_value, func.count()).where(*wanted)
    counts: Mapping[tuple[str, str], dict[float, int]] = defaultdict(dict)
    for category, version, p_value, count in connection.execute(found.group_by(*_VERSION, INSPECTIONS.c.p_value)):
        counts[category, version][p_value] = count
    return counts


def _bucket(dialect: str, seconds: int) -> ColumnElement[int]:
    """How many hours or days the inspection came after 1970."""
    epoch = extract("epoch", INSPECTIONS.c.created_at)
    if dialect == "postgresql":  # with fractions of seconds; a cast would round them
        return cast(func.floor(epoch / seconds), BigInteger)
    return epoch // seconds  # whole seconds: SQLAlchemy makes them with strftime
