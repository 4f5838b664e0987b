"""The database: durability settings, migrations from every earlier schema, and addresses that lead nowhere."""

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text

from service.errors import StartupError, StoreUnavailable
from service.storage.database import Database, open_database, open_existing
from service.storage.inspections import Inspections
from service.storage.tables import METADATA

FIRST = text(
    "INSERT INTO inspections VALUES (:id, 'plate', '0123456789ab', 'A', NULL, 'pass', 0.5, 1.0, 0.5, '[]', 4, 3, "
    "'00', 'image/png', true, :map, 1, 2, :at, '{}')"
)


def test_sqlite_is_set_up_to_survive_a_power_cut(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'a.sqlite'}")
    with database.engine.connect() as connection:
        values = {name: connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous")}
        assert values == {"journal_mode": "wal", "synchronous": 2}
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
        assert connection.scalar(text("PRAGMA busy_timeout")) == 10000
    database.close()


def test_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
        assert set(inspect(connection).get_table_names()) == {*METADATA.tables, "alembic_version"}


def test_inspections_of_the_first_schema_are_carried_over(database_url: str) -> None:
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).parent.mkdir()
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    _migrate(engine, "0001")
    ids = [uuid.uuid4() for _ in range(3)]
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO artifacts VALUES ('plate', '0123456789ab', '{}', '2030-01-01 00:00:00')"))
        connection.execute(
            text("INSERT INTO activations VALUES (1, 'plate', '0123456789ab', '2030-01-01 00:00:00')"),
        )
        for day, key in enumerate(reversed(ids), start=1):
            values = {"id": key.hex, "at": f"2030-01-{10 - day:02} 00:00:00", "map": b"\0\0\0\x3c"}
            connection.execute(FIRST, values)
    engine.dispose()

    database = open_database(database_url)
    found = Inspections(database).find(ids[0])
    assert (found.created_at, found.serial, found.request_id) == (datetime(2030, 1, 7, tzinfo=UTC), "A", "")
    assert Inspections(database).score_map(ids[0]).tolist() == [[0.0, 1.0]]
    with database.engine.connect() as connection:
        numbers = connection.execute(text("SELECT number, created_at FROM inspections ORDER BY created_at")).all()
        assert [row.number for row in numbers] == [1, 2, 3]
    database.close()


def _migrate(engine: Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "service:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_a_newer_database_is_refused(database_url: str) -> None:
    database = open_database(database_url)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(StartupError, match="newer JigSight"):
        open_database(database_url)


@pytest.mark.parametrize("content", [b"not a database" * 100, b""])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(content)
    if content:
        with pytest.raises(StartupError, match="cannot be opened"):
            open_database(f"sqlite:///{path}")
    else:
        open_database(f"sqlite:///{path}").close()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "nonsense://x/y",
        "sqlite:////proc/none/a.sqlite",
        "mysql://a/b",
        "postgresql:///a?host=/nowhere",
        "postgresql://a:abc/b",
    ],
)
def test_impossible_addresses_are_refused(url: str) -> None:
    with pytest.raises(StartupError) as refused:
        open_database(url)
    assert "sqlalche.me" not in str(refused.value)
    with pytest.raises(StartupError):
        open_existing(url)


def test_what_is_to_be_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.sqlite"
    with pytest.raises(StartupError, match="There is no database"):
        open_existing(f"sqlite:///{path}")
    assert not path.parent.exists()
    open_database(f"sqlite:///{path}").close()
    open_existing(f"sqlite:///{path}").close()


def test_a_migration_that_fails_leaves_nothing_half_done(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a full disk would, or a kill: the next start finds the database as it was, and migrates it."""
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).parent.mkdir()
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    _migrate(engine, "0001")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO artifacts VALUES ('plate', '0123456789ab', '{}', '2030-01-01 00:00:00')"))
        key = uuid.uuid4()
        connection.execute(FIRST, {"id": key.hex, "at": "2030-01-07 00:00:00", "map": b"\0\0\0\x3c"})

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr("alembic.op.drop_table", fail)
        with pytest.raises(StartupError, match="the disk is full"):
            open_database(database_url)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == inspect(engine).get_table_names()
        assert "inspections_before" not in inspect(connection).get_table_names()
        assert connection.execute(text("SELECT count(*) FROM inspections")).scalar_one() == 1
    engine.dispose()
    database = open_database(database_url)
    assert Inspections(database).find(key).serial == "A"
    database.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_gone_is_not_written_to(tmp_path: Path, replaced: bool) -> None:
    path, aside = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    database = open_database(f"sqlite:///{path}")
    database.ping()
    path.rename(aside)
    if replaced:
        path.write_bytes(b"")
    for use in (database.reading, database.transaction):
        with pytest.raises(StoreUnavailable), use() as connection:
            connection.execute(text("SELECT count(*) FROM inspections"))
    with pytest.raises(StoreUnavailable):
        database.ping()
    assert path.exists() == replaced, "no new file takes its place"
    aside.replace(path)
    database.ping()
    database.close()
