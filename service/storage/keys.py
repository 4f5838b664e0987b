"""API keys in the database. A revoked key stays, so that its name is never given to somebody else."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from service.access.principal import Scope
from service.errors import KeyRefused
from service.storage.audit import Change, note
from service.storage.database import Database
from service.storage.tables import API_KEYS


@dataclass(frozen=True)
class NewKey:
    """What a key is to be; `rate_limit` is requests a second, None: as many as it likes."""

    name: str
    sha256: str
    scopes: frozenset[Scope]
    rate_limit: float | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Key(NewKey):
    """A key as it is stored."""

    id: int
    created_at: datetime
    revoked_at: datetime | None


class Keys:
    """The table of keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, key: NewKey, *, change: Change) -> None:
        """Store a key. Raises KeyRefused if its name was ever given before."""
        row = {
            "name": key.name,
            "sha256": key.sha256,
            "scopes": sorted(key.scopes),
            "rate_limit": key.rate_limit,
            "created_at": datetime.now(UTC),
            "expires_at": key.expires_at,
        }
        try:
            with self._database.transaction() as connection:
                connection.execute(insert(API_KEYS).values(row))
                note(connection, change)
        except IntegrityError:
            raise KeyRefused(
                f"There is, or was, a key named {key.name}. Names are not given twice; choose another."
            ) from None

    def revoke(self, name: str, *, change: Change) -> bool:
        """Refuse a key from now on; False if it was revoked before. Raises KeyRefused if there is none."""
        with self._database.transaction() as connection:
            ours = (API_KEYS.c.name == name) & API_KEYS.c.revoked_at.is_(None)
            done = connection.execute(update(API_KEYS).where(ours).values(revoked_at=datetime.now(UTC)))
            if done.rowcount:
                note(connection, change)
                return True
            if connection.execute(select(API_KEYS.c.id).where(API_KEYS.c.name == name)).first() is None:
                raise KeyRefused(f"There is no key named {name!r}. `jigsight keys list` shows those that there are.")
            return False

    def all(self) -> list[Key]:
        """Every key that there ever was, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(select(API_KEYS).order_by(API_KEYS.c.id))
            return [Key(**{**row._mapping, "scopes": frozenset(row.scopes)}) for row in rows]

    def exist(self) -> bool:
        """Whether there ever was a key: from then on, every request needs one."""
        with self._database.reading() as connection:
            return connection.execute(select(API_KEYS.c.id).limit(1)).first() is not None
