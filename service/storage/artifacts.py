"""The artifacts that were ever served, which of them are active, and their thresholds where those were changed.

All of it is appended and nothing overwritten: how a part was judged in spring can be told in autumn.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

from pydantic import ValidationError
from sqlalchemy import Connection, func, insert, select

from models.manifest import Manifest
from service.errors import ManifestUnreadable
from service.storage.audit import Change, note
from service.storage.database import Database
from service.storage.tables import ACTIVATIONS, ARTIFACTS, THRESHOLDS


@dataclass(frozen=True)
class Activation:
    """Which version of a category judges, since when and by whose decision."""

    category: str
    version: str
    activated_at: datetime
    activated_by: str


@dataclass(frozen=True)
class ThresholdChange:
    """A threshold instead of the manifest's; without a value, the manifest's again."""

    value: float | None
    false_reject_rate: float | None
    set_at: datetime
    set_by: str


_ACTIVATION = tuple(ACTIVATIONS.c[field.name] for field in fields(Activation))


class Artifacts:
    """Manifests, activations and thresholds in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def manifest(self, category: str, version: str) -> Manifest:
        """The manifest of an artifact that was served once, whether or not its file is still there.

        Raises ManifestUnreadable for one of a format that is not read any more.
        """
        wanted = (ARTIFACTS.c.category == category) & (ARTIFACTS.c.version == version)
        with self._database.reading() as connection:
            document: str = connection.execute(select(ARTIFACTS.c.manifest).where(wanted)).scalar_one()
        try:
            return Manifest.model_validate_json(document)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ManifestUnreadable(category, version, reason=f"{where}: {first['msg']}") from None

    def held(self) -> Set[tuple[str, str]]:
        """(category, version) of every artifact that was served once."""
        with self._database.reading() as connection:
            return _held(connection)

    def remember(self, manifests: Iterable[tuple[str, Manifest]]) -> None:
        """Note artifacts, given as version and manifest, that may make inspections from now on."""
        with self._database.adding() as connection:
            known = _held(connection)
            new = [
                {
                    "category": manifest.category,
                    "version": version,
                    "manifest": manifest.to_json(),
                    "first_seen_at": datetime.now(UTC),
                }
                for version, manifest in manifests
                if (manifest.category, version) not in known
            ]
            if new:
                connection.execute(insert(ARTIFACTS), new)

    def activate(self, category: str, version: str, *, change: Change) -> Activation:
        """Make a remembered version the active one of its category."""
        with self._database.transaction() as connection:
            return _activate(connection, category, version, change=change)

    def activate_first(self, category: str, version: str, *, change: Change) -> Activation:
        """The same, unless the category has an active version by now: then that one, and nothing is changed."""
        latest = select(*_ACTIVATION).where(ACTIVATIONS.c.category == category).order_by(ACTIVATIONS.c.id.desc())
        with self._database.adding() as connection:  # one transaction at a time, in whatever process
            row = connection.execute(latest.limit(1)).one_or_none()
            if row is not None:
                return Activation(**row._mapping)
            return _activate(connection, category, version, change=change)

    def activations(self) -> Mapping[str, Activation]:
        """Category -> its last activation, for the categories that have one."""
        latest = select(func.max(ACTIVATIONS.c.id)).group_by(ACTIVATIONS.c.category)
        with self._database.reading() as connection:
            rows = connection.execute(select(*_ACTIVATION).where(ACTIVATIONS.c.id.in_(latest)))
            return {row.category: Activation(**row._mapping) for row in rows}

    def history(self, category: str) -> list[Activation]:
        """A category's activations, newest first."""
        wanted = select(*_ACTIVATION).where(ACTIVATIONS.c.category == category).order_by(ACTIVATIONS.c.id.desc())
        with self._database.reading() as connection:
            return [Activation(**row._mapping) for row in connection.execute(wanted)]

    def set_threshold(
        self, category: str, version: str, *, value: float | None, false_reject_rate: float | None, change: Change
    ) -> ThresholdChange:
        """Let a version fail at another value from now on; None: at its manifest's again."""
        made = ThresholdChange(value, false_reject_rate, set_at=datetime.now(UTC), set_by=change.actor)
        with self._database.transaction() as connection:
            connection.execute(insert(THRESHOLDS).values(category=category, version=version, **asdict(made)))
            note(connection, change)
        return made

    def thresholds(self) -> Mapping[tuple[str, str], ThresholdChange]:
        """(category, version) -> the last change of its threshold, for the versions that have one."""
        latest = select(func.max(THRESHOLDS.c.id)).group_by(THRESHOLDS.c.category, THRESHOLDS.c.version)
        with self._database.reading() as connection:
            rows = connection.execute(select(THRESHOLDS).where(THRESHOLDS.c.id.in_(latest)))
            return {
                (row.category, row.version): ThresholdChange(
                    value=row.value, false_reject_rate=row.false_reject_rate, set_at=row.set_at, set_by=row.set_by
                )
                for row in rows
            }


def _held(connection: Connection) -> Set[tuple[str, str]]:
    rows = connection.execute(select(ARTIFACTS.c.category, ARTIFACTS.c.version))
    return {(row.category, row.version) for row in rows}


def _activate(connection: Connection, category: str, version: str, *, change: Change) -> Activation:
    made = Activation(category, version, activated_at=datetime.now(UTC), activated_by=change.actor)
    connection.execute(insert(ACTIVATIONS).values(asdict(made)))
    note(connection, change)
    return made
