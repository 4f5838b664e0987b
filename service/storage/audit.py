"""The audit trail: what administrators changed. Each note is part of the transaction of its change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from service.storage.database import Database
from service.storage.tables import AUDIT

LARGEST_ID = 2**31 - 1  # of PostgreSQL's integers


@dataclass(frozen=True)
class Change:
    """What somebody is about to change: `action` on `subject`, e.g. "activate" on "category bracket"."""

    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    request_id: str = ""


def note(connection: Connection, change: Change) -> None:
    """Write a change down, in its own transaction."""
    connection.execute(
        insert(AUDIT).values(
            at=datetime.now(UTC),
            actor=change.actor,
            action=change.action,
            subject=change.subject,
            detail=dict(change.detail),
            request_id=change.request_id,
        )
    )


@dataclass(frozen=True, kw_only=True)
class Noted(Change):
    """A change as it was written down."""

    id: int
    at: datetime


@dataclass(frozen=True)
class Wanted:
    """Which changes: from `since` on, before `until`, by `actor`, with ids below `before`. None: all."""

    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None
    before: int | None = None


class Audit:
    """The audit trail, to be read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, wanted: Wanted, *, limit: int) -> list[Noted]:
        """Changes, newest first, and at most `limit`."""
        rows = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
        if wanted.since is not None:
            rows = rows.where(AUDIT.c.at >= wanted.since)
        if wanted.until is not None:
            rows = rows.where(AUDIT.c.at < wanted.until)
        if wanted.actor is not None:
            rows = rows.where(AUDIT.c.actor == wanted.actor)
        if wanted.before is not None:
            rows = rows.where(AUDIT.c.id < wanted.before)
        with self._database.searching() as connection:
            return [Noted(**row._mapping) for row in connection.execute(rows)]
