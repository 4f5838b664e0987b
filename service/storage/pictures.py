"""Which pictures are kept, how large they are and when each was last uploaded.

A picture may be uploaded anew while retention removes it, in this process or another. Neither waits for the other:
- An upload first *renews* the row, if there is one, and then writes the file. Who commits later than `GRACE` after
  that is on his own, and nobody does: every wait on the way is bounded by less.
- Retention first *claims* rows that it saw, if they still are as it saw them, and never those of the last `GRACE`. A
  claimed row's time is `_CLAIMED` too early, so that it says when it was claimed. Then the file goes, and then the row.
- An upload that finds its picture claimed waits a moment for the row to go. Claims older than `LEASE` are those of a
  process that died; whoever comes first takes them over. Nothing is removed on a claim as old as that.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, between, delete, func, not_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from service.errors import StoreUnavailable
from service.storage.database import Database
from service.storage.tables import PICTURES

GRACE = timedelta(minutes=10)
LEASE = timedelta(minutes=15)
_CLAIMED = timedelta(days=365_000)
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)  # no picture is older; times before this are claims
_PATIENCE = 2.0  # seconds that an upload waits for a claim to go


@dataclass(frozen=True)
class KeptPicture:
    """A row: its size in bytes, and when it was last uploaded."""

    sha256: str
    bytes: int
    kept_at: datetime


@dataclass(frozen=True)
class Totals:
    """All kept pictures together; `newest` is the time of the last upload."""

    pictures: int
    bytes: int
    newest: datetime | None


def note_kept(connection: Connection, kept: Iterable[tuple[str, int, datetime]]) -> None:
    """Write down pictures that were kept, as (sha256, bytes, at), in the transaction of their inspections."""
    rows = {digest: {"sha256": digest, "bytes": size, "kept_at": at} for digest, size, at in kept}
    if rows:
        adding = _insert(connection)
        changed = {name: adding.excluded[name] for name in ("bytes", "kept_at")}
        connection.execute(adding.on_conflict_do_update(index_elements=["sha256"], set_=changed), list(rows.values()))


class PictureIndex:
    """The rows of `pictures`. Every method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def knows(self, digest: str) -> bool:
        """Whether a picture is to be kept: it has a row, and nobody is just removing it."""
        kept_at = self._kept_at(digest)
        return kept_at is not None and kept_at >= _FIRST

    def renew(self, digest: str, *, at: datetime) -> None:
        """Keep retention from a picture that is being uploaded, if it has a row. Returns once nobody removes it."""
        patient = time.monotonic() + _PATIENCE
        while (seen := self._kept_at(digest)) is not None:
            free = seen >= _FIRST or seen < at - LEASE - _CLAIMED
            if free and self._move(digest, seen, at):
                return
            if time.monotonic() > patient:
                raise StoreUnavailable("This very picture is just being removed as an old one. Send it again later.")
            time.sleep(0.02)

    def totals(self) -> Totals:
        """How many there are, and how large they are together."""
        wanted = select(func.count(), func.coalesce(func.sum(PICTURES.c.bytes), 0), func.max(PICTURES.c.kept_at))
        with self._database.searching() as connection:
            count, size, newest = connection.execute(wanted).one()
        return Totals(pictures=count, bytes=int(size), newest=None if newest is None or newest < _FIRST else newest)

    def oldest(self, limit: int, *, now: datetime, before: datetime | None = None) -> list[KeptPicture]:
        """The first that retention may remove, by age, but none that was just uploaded."""
        settled = not_(between(PICTURES.c.kept_at, now - GRACE, now + GRACE))  # a clock set back leaves times to come
        wanted = select(PICTURES).where(settled, PICTURES.c.kept_at >= _FIRST)
        if before is not None:
            wanted = wanted.where(PICTURES.c.kept_at < before)
        with self._database.searching() as connection:
            rows = connection.execute(wanted.order_by(PICTURES.c.kept_at).limit(limit))
            return [KeptPicture(**row._mapping) for row in rows]

    def abandoned(self, limit: int, *, now: datetime) -> list[KeptPicture]:
        """Pictures that some process died over removing."""
        wanted = select(PICTURES).where(PICTURES.c.kept_at < now - LEASE - _CLAIMED).limit(limit)
        with self._database.reading() as connection:
            return [KeptPicture(**row._mapping) for row in connection.execute(wanted)]

    def claim(self, pictures: Sequence[KeptPicture], *, now: datetime) -> list[KeptPicture]:
        """Those of the pictures that are still as given: nobody else will touch them for as long as `LEASE`."""
        seen = [(picture.sha256, picture.kept_at) for picture in pictures]
        unchanged = tuple_(PICTURES.c.sha256, PICTURES.c.kept_at).in_(seen)
        claiming = update(PICTURES).where(unchanged).values(kept_at=now - _CLAIMED).returning(PICTURES)
        with self._database.transaction() as connection:
            return [KeptPicture(**row._mapping) for row in connection.execute(claiming)]

    def forget(self, claimed: Sequence[KeptPicture]) -> None:
        """Delete the rows of claimed pictures whose files have gone."""
        if not claimed:
            return
        own = [(picture.sha256, picture.kept_at) for picture in claimed]
        with self._database.transaction() as connection:
            connection.execute(delete(PICTURES).where(tuple_(PICTURES.c.sha256, PICTURES.c.kept_at).in_(own)))

    def unknown(self, digests: Sequence[str]) -> list[str]:
        """Those that have no row."""
        with self._database.reading() as connection:
            wanted = select(PICTURES.c.sha256).where(PICTURES.c.sha256.in_(digests))
            known = set(connection.scalars(wanted))
        return [digest for digest in digests if digest not in known]

    def adopt(self, found: Sequence[KeptPicture]) -> None:
        """Give rows to pictures that have none."""
        if not found:
            return
        rows = [asdict(each) | {"kept_at": max(each.kept_at, _FIRST)} for each in found]
        with self._database.transaction() as connection:
            connection.execute(_insert(connection).on_conflict_do_nothing(), rows)

    def _kept_at(self, digest: str) -> datetime | None:
        with self._database.reading() as connection:
            return connection.scalar(select(PICTURES.c.kept_at).where(PICTURES.c.sha256 == digest))

    def _move(self, digest: str, seen: datetime, at: datetime) -> bool:
        unchanged = (PICTURES.c.sha256 == digest) & (PICTURES.c.kept_at == seen)
        with self._database.transaction() as connection:
            return connection.execute(update(PICTURES).where(unchanged).values(kept_at=at)).rowcount == 1


def _insert(connection: Connection) -> sqlite.Insert | postgresql.Insert:
    """An insert that knows what to do on a conflict: the two databases say it alike, SQLAlchemy does not."""
    return postgresql.insert(PICTURES) if connection.dialect.name == "postgresql" else sqlite.insert(PICTURES)
