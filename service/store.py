"""What the service remembers: inspections, the artifacts that made them, and which artifacts are active.

A method that has returned has committed. Errors of the database become `StoreUnavailable`: nothing is
answered that was not stored.
"""

import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, func, insert, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, TimeoutError

from models.manifest import Manifest
from service import maps
from service.errors import StoreUnavailable, UnknownInspection
from service.tables import ACTIVATIONS, ARTIFACTS, INSPECTIONS


@dataclass(frozen=True)
class Record:
    """One inspection as it is stored, without its map. `durations` are milliseconds by stage."""

    id: uuid.UUID
    category: str
    version: str
    serial: str | None
    station: str | None
    verdict: Literal["pass", "fail"]
    score: float
    threshold: float
    p_value: float
    regions: list[dict[str, Any]]
    width: int
    height: int
    image_sha256: str
    image_media_type: str
    image_kept: bool
    created_at: datetime
    durations: dict[str, float]


_RECORD = [INSPECTIONS.c[field.name] for field in fields(Record)]


class Store:
    """The database behind plain methods; safe in any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # SQLite lets one writer in at a time and the others poll; a lock lets them in as they come.
        self._writing = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def ping(self) -> None:
        """Raise StoreUnavailable if the database does not answer."""
        with self._reading() as connection:
            connection.execute(select(INSPECTIONS.c.id).limit(1))  # SQLite would answer SELECT 1 without its file

    def add(self, record: Record, packed_map: NDArray[np.float16]) -> None:
        """Commit one inspection with its map (h, w)."""
        row = asdict(record) | {
            "map": maps.to_bytes(packed_map),
            "map_height": packed_map.shape[0],
            "map_width": packed_map.shape[1],
        }
        with self._transaction() as connection:
            connection.execute(insert(INSPECTIONS).values(row))

    def inspection(self, key: uuid.UUID) -> Record:
        """The inspection of this id. Raises UnknownInspection."""
        with self._reading() as connection:
            row = connection.execute(select(*_RECORD).where(INSPECTIONS.c.id == key)).one_or_none()
        if row is None:
            raise _unknown(key)
        return Record(**row._mapping)

    def score_map(self, key: uuid.UUID) -> NDArray[np.float16]:
        """The map (h, w) of the inspection of this id. Raises UnknownInspection."""
        columns = INSPECTIONS.c.map, INSPECTIONS.c.map_height, INSPECTIONS.c.map_width
        with self._reading() as connection:
            row = connection.execute(select(*columns).where(INSPECTIONS.c.id == key)).one_or_none()
        if row is None:
            raise _unknown(key)
        return maps.from_bytes(row.map, shape=(row.map_height, row.map_width))

    def manifest(self, category: str, version: str) -> Manifest:
        """The manifest of an artifact that was served once, whether or not its file is still there."""
        wanted = (ARTIFACTS.c.category == category) & (ARTIFACTS.c.version == version)
        with self._reading() as connection:
            document: str = connection.execute(select(ARTIFACTS.c.manifest).where(wanted)).scalar_one()
        return Manifest.model_validate_json(document)

    def remember(self, manifests: Iterable[tuple[str, Manifest]]) -> None:
        """Note artifacts, given as version and manifest, that may make inspections from now on."""
        with self._transaction() as connection:
            rows = connection.execute(select(ARTIFACTS.c.category, ARTIFACTS.c.version))
            known = {(row.category, row.version) for row in rows}
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

    def activate(self, category: str, version: str) -> None:
        """Make a remembered version the active one of its category, from the next start on."""
        row = {"category": category, "version": version, "activated_at": datetime.now(UTC)}
        with self._transaction() as connection:
            connection.execute(insert(ACTIVATIONS).values(row))

    def activated(self) -> Mapping[str, str]:
        """Category -> active version, for the categories for which one was ever named."""
        latest = select(func.max(ACTIVATIONS.c.id)).group_by(ACTIVATIONS.c.category)
        rows = select(ACTIVATIONS.c.category, ACTIVATIONS.c.version).where(ACTIVATIONS.c.id.in_(latest))
        with self._reading() as connection:
            return {row.category: row.version for row in connection.execute(rows)}

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with _translated(), self._writing, self._engine.begin() as connection:
            yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError):  # our own mistakes, not the database's
        raise
    except (DBAPIError, TimeoutError) as error:
        raise StoreUnavailable(
            "The database does not answer, so there is no result. The service's log says more; send the "
            "request again once the database is back."
        ) from error


def _unknown(key: uuid.UUID) -> UnknownInspection:
    return UnknownInspection(f"There is no inspection {key}. The answer to a POST holds its id.")
