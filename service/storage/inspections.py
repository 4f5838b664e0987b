"""Inspections and their maps. A method that has returned has committed."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, select

from service import maps
from service.errors import UnknownInspection
from service.storage.database import Database
from service.storage.pictures import note_kept
from service.storage.tables import INSPECTIONS, SCORE_MAPS


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
    request_id: str = ""
    submitted_by: str = ""
    idempotency_key: str | None = None


@dataclass(frozen=True)
class Addition:
    """An inspection to be stored, with its map (h, w), and the size of its picture if that was kept."""

    record: Record
    score_map: NDArray[np.float16]
    picture_bytes: int | None = None


RECORD = tuple(INSPECTIONS.c[field.name] for field in fields(Record))


class Inspections:
    """Inspections in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, added: Sequence[Addition]) -> None:
        """Commit inspections with their maps and the rows of their pictures, all or none.

        Raises IntegrityError if one of their ids or idempotency keys is taken.
        """
        rows = [asdict(each.record) for each in added]
        grids = [
            {
                "inspection": each.record.id,
                "values": maps.to_bytes(each.score_map),
                "height": each.score_map.shape[0],
                "width": each.score_map.shape[1],
            }
            for each in added
        ]
        kept = [
            (each.record.image_sha256, each.picture_bytes, each.record.created_at)
            for each in added
            if each.picture_bytes is not None
        ]
        with self._database.adding() as connection:
            connection.execute(insert(INSPECTIONS), rows)
            connection.execute(insert(SCORE_MAPS), grids)
            note_kept(connection, kept)

    def find(self, key: uuid.UUID) -> Record:
        """The inspection of this id. Raises UnknownInspection."""
        with self._database.reading() as connection:
            row = connection.execute(select(*RECORD).where(INSPECTIONS.c.id == key)).one_or_none()
        if row is None:
            raise _unknown(key)
        return Record(**row._mapping)

    def answered(self, idempotency_key: str, *, submitted_by: str) -> Record | None:
        """The inspection that somebody's request with this idempotency key was answered with, if it was."""
        wanted = (INSPECTIONS.c.submitted_by == submitted_by) & (INSPECTIONS.c.idempotency_key == idempotency_key)
        with self._database.reading() as connection:
            row = connection.execute(select(*RECORD).where(wanted)).one_or_none()
        return None if row is None else Record(**row._mapping)

    def score_map(self, key: uuid.UUID) -> NDArray[np.float16]:
        """The map (h, w) of the inspection of this id. Raises UnknownInspection."""
        with self._database.reading() as connection:
            row = connection.execute(select(SCORE_MAPS).where(SCORE_MAPS.c.inspection == key)).one_or_none()
        if row is None:
            raise _unknown(key)
        return maps.from_bytes(row._mapping["values"], shape=(row.height, row.width))


def _unknown(key: uuid.UUID) -> UnknownInspection:
    return UnknownInspection(f"There is no inspection {key}. The answer to a POST holds its id.")
