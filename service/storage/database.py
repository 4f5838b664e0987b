"""The database itself: durability settings, migrations to the newest schema, transactions, and one kind of error.

What is committed survives a power cut. Errors of the database become `StoreUnavailable`: nothing is answered that was
not stored.
"""

import math
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from service.errors import StartupError, StoreUnavailable
from service.storage import sqlite
from service.storage.outage import Hanging, Outage
from service.storage.tables import INSPECTIONS

_PATIENCE = 8.0  # seconds for each answer of a database on the network; longer than it waits for locks
_QUERY_PATIENCE = 65.0  # for questions about very many rows; longer than it works on one
_DISK_FULL = "53100"  # PostgreSQL's name for it
_ADDING = 0x6A696773  # the advisory lock of whoever adds inspections: "jigs"


class Database:
    """Connections to one database; safe in any thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # SQLite lets one writer in at a time and the others poll; a lock lets them in as they come.
        self._writing = threading.Lock()
        self._outage = Outage()

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def ping(self) -> None:
        """Raise StoreUnavailable if the database does not answer."""
        with self.reading() as connection:
            connection.execute(select(INSPECTIONS.c.id).limit(1))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to look something up with. Raises StoreUnavailable."""
        with _translated(), self._connection(_PATIENCE) as connection:
            yield connection

    @contextmanager
    def searching(self) -> Iterator[Connection]:
        """A connection for questions that may take a minute. Raises StoreUnavailable."""
        with _translated(), self._connection(_QUERY_PATIENCE) as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that is committed when the block ends. Raises StoreUnavailable, IntegrityError."""
        with _translated(), self._turn(), self._connection(_PATIENCE) as connection, connection.begin():
            yield connection

    @contextmanager
    def _connection(self, patience: float) -> Iterator[Connection]:
        with self._outage.noticed(), self.engine.connect() as connection:
            yield connection.execution_options(patience=patience)  # of a database on the network

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._writing.acquire(timeout=_PATIENCE):
            raise _silent()
        try:
            yield
        finally:
            self._writing.release()

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
            raise StartupError(f"The database {shown(url)} cannot be opened: {_told(error)}") from error
        on_failure.pop_all()
    return Database(engine)


def open_existing(url: str) -> Database:
    """The same, but a file of SQLite that is not there is a StartupError too, and is not made."""
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database and not Path(parsed.database).is_file():
        raise StartupError(
            f"There is no database {shown(url)}. Name the service's folder with --data, or its database in "
            "JIGSIGHT_DATABASE_URL."
        )
    return open_database(url)


def shown(url: str) -> str:
    """The address without a password, which may also be among its parameters."""
    return _parsed(url).set(query={}).render_as_string(hide_password=True)


def _told(error: Exception) -> str:
    """What a driver says, without the statement and the link to a manual that SQLAlchemy adds."""
    said = error.orig if isinstance(error, DBAPIError) else error
    return str(said).partition("\n(Background on")[0].strip()


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise StartupError(
            "JIGSIGHT_DATABASE_URL is no address of a database. Write it like sqlite:////srv/jigsight.sqlite or "
            "postgresql://user:password@host:5432/jigsight."
        ) from error


def _connectable(url: str) -> Engine:
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return sqlite.connect(parsed)
    if parsed.get_backend_name() == "postgresql":
        return _postgresql(parsed)
    raise StartupError(
        f"JIGSIGHT_DATABASE_URL asks for {parsed.get_backend_name()}; sqlite and postgresql are what there is."
    )


def _postgresql(url: URL) -> Engine:
    from service.storage import postgresql  # psycopg is not installed everywhere

    return postgresql.connect(url)


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", "service:migrations")
    if engine.dialect.name == "sqlite":
        engine = sqlite.migrating(engine.url)
    with engine.connect().execution_options(patience=math.inf) as connection, connection.begin():
        if connection.dialect.name == "postgresql":  # of several processes that start at once, one migrates
            for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                connection.execute(text(f"SET LOCAL {limit} = 0"))  # millions of rows may have to be moved
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADDING})"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError):  # our own mistakes, not the database's
        raise
    except Hanging:
        raise _silent() from None  # whoever found out has logged it
    except DBAPIError as error:
        raise (_full() if _is_full(error) else _silent()) from error
    except NoConnectionFree as error:
        raise _silent() from error


def _is_full(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return getattr(error.orig, "sqlstate", None) == _DISK_FULL


def _silent() -> StoreUnavailable:
    return StoreUnavailable(
        "The database does not answer, so there is no result. The service's log says more; send the request again "
        "once the database is back."
    )


def _full() -> StoreUnavailable:
    return StoreUnavailable(
        "The database's disk is full: nothing can be stored, so there is no verdict. Free some space and send the "
        "part again; the service need not be restarted."
    )
