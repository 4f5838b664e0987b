"""Counts over a window of time: inspected, rejected, mean score by hour or day, and how often each p-value occurred.

The database does the counting. Hours and days are UTC's; those without an inspection do not occur.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Column, ColumnElement, Connection, case, func, select

from service.storage.database import Database
from service.storage.queries import Filters
from service.storage.tables import INSPECTIONS

Width = Literal["hour", "day"]
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
        with self._database.searching() as connection:
            first, last = filters.numbers(connection)
            wanted = [*filters.clauses(), INSPECTIONS.c.number.between(first, last)]
            buckets = _buckets(connection, wanted, width=width)
            p_values = _p_values(connection, wanted)
        return [Tally(*key, buckets[key], p_values[key]) for key in sorted(buckets)]


_ByVersion = Mapping[tuple[str, str], dict[datetime, Count]]


def _buckets(connection: Connection, wanted: list[ColumnElement[bool]], *, width: Width) -> _ByVersion:
    rejected = func.sum(case((INSPECTIONS.c.verdict == "fail", 1), else_=0))
    bucket = _bucket(connection.dialect.name, width).label("bucket")
    found = (
        select(*_VERSION, bucket, func.count(), rejected, func.sum(INSPECTIONS.c.score))
        .where(*wanted)
        .group_by(*_VERSION, bucket)
        .order_by(*_VERSION, bucket)
    )
    counts: _ByVersion = defaultdict(dict)
    for category, version, start, inspected, failed, score in connection.execute(found):
        counts[category, version][_start(start)] = Count(inspected, failed, score)
    return counts


def _p_values(connection: Connection, wanted: list[ColumnElement[bool]]) -> Mapping[tuple[str, str], dict[float, int]]:
    found = select(*_VERSION, INSPECTIONS.c.p_value, func.count()).where(*wanted)
    counts: Mapping[tuple[str, str], dict[float, int]] = defaultdict(dict)
    for category, version, p_value, count in connection.execute(found.group_by(*_VERSION, INSPECTIONS.c.p_value)):
        counts[category, version][p_value] = count
    return counts


def _bucket(dialect: str, width: Width) -> ColumnElement[Any]:
    """The hour or day that an inspection was made in; exactly, where SQLite's own functions round to milliseconds."""
    if dialect == "postgresql":
        return func.date_trunc(width, func.timezone("UTC", INSPECTIONS.c.created_at))
    return func.substr(INSPECTIONS.c.created_at, 1, len("2030-01-31 23" if width == "hour" else "2030-01-31"))


def _start(bucket: datetime | str) -> datetime:
    moment = bucket if isinstance(bucket, datetime) else datetime.fromisoformat(bucket)
    return moment.replace(tzinfo=UTC)
