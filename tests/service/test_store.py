"""The database: durability settings, migrations, and that what was stored comes back."""

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from models.artifact import Artifact
from service.database import open_database
from service.errors import StartupError, StoreUnavailable, UnknownInspection
from service.store import Record, Store
from service.tables import METADATA
from service.uuid7 import uuid7


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'new folder' / '100%.sqlite'}"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = open_database(url)
    yield opened
    opened.dispose()


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
    )


@pytest.fixture
def store(engine: Engine, artifact: Artifact) -> Store:
    store = Store(engine)
    store.remember([(artifact.version, artifact.manifest)])
    return store


def test_sqlite_is_set_up_to_survive_a_power_cut(engine: Engine) -> None:
    with engine.connect() as connection:
        values = {name: connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous")}
        assert values == {"journal_mode": "wal", "synchronous": 2}
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
        assert connection.scalar(text("PRAGMA busy_timeout")) == 10000


def test_migrations_make_the_tables_that_the_code_uses(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_opening_again_keeps_what_is_there(url: str, store: Store, record: Record) -> None:
    store.add(record, np.ones((2, 3), np.float16))
    with closing(Store(open_database(url))) as again:
        assert again.inspection(record.id) == record


def test_an_inspection_comes_back_as_it_was(store: Store, record: Record) -> None:
    packed = np.arange(6, dtype=np.float16).reshape(2, 3)
    store.add(record, packed)
    back = store.inspection(record.id)
    assert back == record
    assert back.created_at.tzinfo is UTC
    np.testing.assert_array_equal(store.score_map(record.id), packed)


def test_an_inspection_needs_an_artifact_that_was_served(store: Store, record: Record) -> None:
    with pytest.raises(IntegrityError):
        store.add(replace(record, version="0123456789ab"), np.ones((2, 3), np.float16))
    with pytest.raises(UnknownInspection):
        store.inspection(record.id)


def test_unknown_ids_are_refused(store: Store) -> None:
    for look in (store.inspection, store.score_map):
        with pytest.raises(UnknownInspection):
            look(uuid.uuid4())


def test_artifacts_are_remembered_once(store: Store, artifact: Artifact) -> None:
    store.remember([(artifact.version, artifact.manifest)] * 1)
    assert store.manifest("plate", artifact.version) == artifact.manifest


def test_the_last_activation_counts(store: Store, artifact: Artifact) -> None:
    assert store.activated() == {}
    store.remember([("0123456789ab", artifact.manifest)])
    for version in ("0123456789ab", artifact.version, "0123456789ab"):
        store.activate("plate", version)
        assert store.activated() == {"plate": version}


def test_a_database_that_fails_is_said_to_be_unavailable(store: Store, record: Record, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE inspections"))
    with pytest.raises(StoreUnavailable):
        store.add(record, np.ones((2, 3), np.float16))


def test_a_newer_database_is_refused(url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StartupError, match="newer JigSight"):
        open_database(url)


@pytest.mark.parametrize("content", [b"not a database" * 100, b""])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(content)
    if content:
        with pytest.raises(StartupError, match="cannot be opened"):
            open_database(f"sqlite:///{path}")
    else:
        open_database(f"sqlite:///{path}").dispose()


@pytest.mark.parametrize("url", ["nonsense", "nonsense://x/y", "sqlite:////proc/none/a.sqlite"])
def test_impossible_addresses_are_refused(url: str) -> None:
    with pytest.raises(StartupError):
        open_database(url)


def test_ids_sort_by_time() -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    ids = [uuid7(start + timedelta(milliseconds=n)) for n in range(100)]
    assert ids == sorted(ids)
    assert [each.version for each in ids] == [7] * 100
    assert {each.variant for each in ids} == {uuid.RFC_4122}
    assert len({uuid7(start) for _ in range(1000)}) == 1000
