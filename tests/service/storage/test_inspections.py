"""Inspections: what was stored comes back, and all or nothing is stored."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from models.artifact import Artifact
from service.errors import StoreUnavailable, UnknownInspection
from service.storage.database import Database, open_database
from service.storage.inspections import Addition, Inspections, Record
from service.storage.tables import INSPECTIONS
from service.uuid7 import uuid7

MAP = np.arange(6, dtype=np.float16).reshape(2, 3)


@pytest.fixture
def record(artifact: Artifact) -> Record:
    now = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2)))
    return Record(
        id=uuid7(now),
        category="plate",
        version=artifact.version,
        serial="№ 1 / [)>06",
        station=None,
        verdict="fail",
        score=0.1 + 0.2,
        threshold=0.25,
        p_value=1 / 3,
        regions=[{"box": [1, 2, 3, 4], "area": 12, "peak": 0.3}],
        width=128,
        height=96,
        image_sha256="0" * 64,
        image_media_type="image/png",
        image_kept=True,
        created_at=now,
        durations={"decode_ms": 1.5, "queue_ms": 0.0, "inference_ms": 3.0},
        request_id="abc",
        submitted_by="camera 3",
        idempotency_key="once",
    )


@pytest.fixture
def inspections(database: Database) -> Inspections:
    return Inspections(database)


def another(record: Record, **changes: object) -> Record:
    return replace(record, id=uuid7(record.created_at), **({"idempotency_key": None} | changes))  # type: ignore[arg-type]


def test_an_inspection_comes_back_as_it_was(inspections: Inspections, record: Record) -> None:
    inspections.add([Addition(record, MAP)])
    back = inspections.find(record.id)
    assert back == record
    assert back.created_at.tzinfo is UTC
    np.testing.assert_array_equal(inspections.score_map(record.id), MAP)


def test_it_is_there_when_the_database_is_opened_again(
    inspections: Inspections, record: Record, database_url: str
) -> None:
    inspections.add([Addition(record, MAP)])
    again = open_database(database_url)
    assert Inspections(again).find(record.id) == record
    again.close()


def test_a_batch_is_stored_whole_or_not_at_all(inspections: Inspections, record: Record) -> None:
    unknown = another(record, version="0123456789ab")  # an artifact that was never served
    with pytest.raises(IntegrityError):
        inspections.add([Addition(record, MAP), Addition(unknown, MAP)])
    with pytest.raises(UnknownInspection):
        inspections.find(record.id)
    inspections.add([Addition(record, MAP), Addition(another(record), MAP)])
    assert inspections.find(record.id) == record


def test_an_idempotency_key_is_used_once_by_each_sender(inspections: Inspections, record: Record) -> None:
    assert inspections.answered("once", submitted_by="camera 3") is None
    inspections.add([Addition(record, MAP)])
    assert inspections.answered("once", submitted_by="camera 3") == record
    assert inspections.answered("once", submitted_by="camera 4") is None
    with pytest.raises(IntegrityError):
        inspections.add([Addition(another(record, idempotency_key="once"), MAP)])
    inspections.add([Addition(another(record, idempotency_key="once", submitted_by="camera 4"), MAP)])
    inspections.add(
        [Addition(another(record), MAP), Addition(another(record), MAP)]
    )  # without a key, as often as one likes


def test_unknown_ids_are_refused(inspections: Inspections) -> None:
    for look in (inspections.find, inspections.score_map):
        with pytest.raises(UnknownInspection):
            look(uuid.uuid4())


def test_a_database_that_fails_is_said_to_be_unavailable(database_url: str, artifact: Artifact, record: Record) -> None:
    if database_url.startswith("postgresql"):
        pytest.skip(
            "a missing table is our own mistake to psycopg; what a server does that is gone is tested elsewhere"
        )
    database = open_database(database_url)
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE score_maps"))
        connection.execute(text("DROP TABLE inspections"))
    with pytest.raises(StoreUnavailable):
        Inspections(database).add([Addition(record, MAP)])
    database.close()


def test_ids_sort_by_time() -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    ids = [uuid7(start + timedelta(milliseconds=n)) for n in range(100)]
    assert ids == sorted(ids)
    assert [each.version for each in ids] == [7] * 100
    assert {each.variant for each in ids} == {uuid.RFC_4122}
    assert len({uuid7(start) for _ in range(1000)}) == 1000


def test_numbers_are_in_the_order_of_commits(database_url: str, database: Database, record: Record) -> None:
    """Whoever else adds rows waits, so that no smaller number appears behind a larger one."""
    other = open_database(database_url)
    order: list[str] = []
    entered = threading.Event()

    def add_another() -> None:
        entered.set()
        with other.adding() as connection:
            connection.execute(insert(INSPECTIONS), [asdict(another(record))])
            order.append("second begins")

    with ThreadPoolExecutor(1) as pool:
        with database.adding() as connection:
            connection.execute(insert(INSPECTIONS), [asdict(record)])
            waiting = pool.submit(add_another)
            assert entered.wait(60)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
            order.append("first ends")
        waiting.result(60)
    assert order == ["first ends", "second begins"]
    other.close()
