"""Servers that take connections and say nothing, and statements that take longer than anybody waits for them."""

import socket
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from service.errors import StartupError
from service.storage.database import Database, open_database
from service.storage.outage import Silence
from service.storage.postgresql import connect

SLEEP = text("SELECT pg_sleep(30)")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    if not database_url.startswith("postgresql"):
        pytest.skip("SQLite has no server")
    engine = connect(make_url(database_url))
    yield engine
    engine.dispose()


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        begun = time.monotonic()
        with pytest.raises(StartupError, match="lets nobody in"):
            open_database(f"postgresql://somebody@127.0.0.1:{listener.getsockname()[1]}/nothing")
        assert time.monotonic() - begun < 8


def test_a_statement_is_given_up_when_patience_is_over(engine: Engine) -> None:
    with engine.connect().execution_options(patience=0.3) as connection:
        begun = time.monotonic()
        with pytest.raises(OperationalError) as found:
            connection.execute(SLEEP)
        assert time.monotonic() - begun < 5
        assert isinstance(found.value.orig, Silence)
        assert connection.invalidated
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_patience_ends_with_the_use_of_a_connection(engine: Engine) -> None:
    for patience in (0.3, 30.0):
        with engine.connect().execution_options(patience=patience) as connection:
            backend = connection.scalar(text("SELECT pg_backend_pid()"))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) == backend  # the pool's only one
        assert connection.connection.dbapi_connection.patience == 3.0  # type: ignore[union-attr]


def test_a_connection_that_was_ended_is_replaced(database: Database) -> None:
    if database.engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no server")
    backend = text("SELECT pg_backend_pid()")
    with database.reading() as first, database.reading() as second:
        pooled = {first.scalar(backend), second.scalar(backend)}
    with database.reading() as first:
        (ended,) = pooled - {first.scalar(backend)}
        first.execute(text("SELECT pg_terminate_backend(:backend)"), {"backend": ended})
    with database.reading() as first, database.reading() as second:
        assert ended not in {first.scalar(backend), second.scalar(backend)}
