"""The audit trail: what administrators changed. Each note is part of the transaction of its change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert

from service.storage.tables import AUDIT


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
