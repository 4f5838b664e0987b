"""The database itself: durability settings, migrations to the newest schema, transactions, and one kind of error.

SQLite runs in WAL mode with `synchronous=FULL`: what is committed survives a power cut. Errors of the database
become `StoreUnavailable`: nothing is answered that was not stored.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from service.errors import StartupError, StoreUnavailable
from service.storage.tables import INSPECTIONS

_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000")
# A database that is gone is to be noticed while the camera still waits, and not after the network's minutes.
_POSTGRES = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,
    "options": "-c statement_timeout=60000 -c lock_timeout=10000",
}
_ADDING = 0x6A696773  # the advisory lock of whoever adds inspections: "jigs"


class Database:
    """Connections to one database; safe in any thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # SQLite lets one writer in at a time and the others poll; a lock lets them in as they come.
        self._writing = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def ping(self) -> None:
        """Raise StoreUnavailable if the database does not answer."""
        with self.reading() as connection:
            connection.execute(select(INSPECTIONS.c.id).limit(1))  # SQLite would answer SELECT 1 without its file

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to look things up with. Raises StoreUnavailable."""
        with _translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that is committed when the block ends. Raises StoreUnavailable, IntegrityError."""
        with _translated(), self._writing, self.engine.begin() as connection:
            yield connection

    @contextmanager
    def adding(self) -> Iterator[Connection]:
        """A transaction in which rows get numbers in the order of their commits, whoever else adds some."""
        with self.transaction() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADDING})"))
            yield connection


def open_database(url: str) -> Database:
    """A database at the newest schema. Raises StartupError if it cannot be opened, or is newer than that."""
    with ExitStack() as on_failure:
        try:
            engine = _connectable(url)
            on_failure.callback(engine.dispose)
            _migrate(engine)
        except CommandError as error:
            raise StartupError(f"The database was made by a newer JigSight ({error}). Use that one.") from error
        except (SQLAlchemyError, OSError, ImportError) as error:
            shown = url.split("@")[-1]  # without a password
            raise StartupError(f"The database {shown} cannot be opened: {error}") from error
        on_failure.pop_all()
    return Database(engine)


def _connectable(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StartupError("JIGSIGHT_DATABASE_URL is not a database URL such as sqlite:///file.") from error
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    if parsed.get_backend_name() == "postgresql":
        return _postgresql(parsed)
    raise StartupError(
        f"JIGSIGHT_DATABASE_URL asks for {parsed.get_backend_name()}; sqlite and postgresql are what there is."
    )


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, pool_pre_ping=True)
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    event.listen(engine, "connect", _set_pragmas)
    return engine


def _postgresql(url: URL) -> Engine:
    if url.drivername == "postgresql":  # SQLAlchemy would look for psycopg2
        url = url.set(drivername="postgresql+psycopg")
    return create_engine(url, pool_pre_ping=True, pool_timeout=10, connect_args=_POSTGRES)


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", "service:migrations")
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # of several processes that start at once, one migrates
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADDING})"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError):  # our own mistakes, not the database's
        raise
    except (DBAPIError, NoConnectionFree) as error:
        raise StoreUnavailable(
            "The database does not answer, so there is no result. The service's log says more; send the "
            "request again once the database is back."
        ) from error
