"""Connections to SQLite: durable ones, to the very file that has the database's name.

A file that is removed or replaced lives on for whoever has it open: what is written there is lost with the process. So
each use of a connection begins with a look whether it is still the same file, and none makes a new one.
"""

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import NullPool

_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000")
_FILE = "jigsight.file"


def connect(url: URL) -> Engine:
    """An engine for a database that exists: `migrating` makes it."""
    path = Path(url.database) if url.database else None
    if path is None:
        engine = create_engine(url)
    else:
        address = f"file:{quote(str(path.absolute()))}?mode=rw"
        engine = create_engine(url, creator=lambda: sqlite3.connect(address, uri=True, check_same_thread=False))
        event.listen(engine, "connect", lambda _, record: record.info.update({_FILE: _identity(path)}))
        event.listen(engine, "checkout", lambda _, record, __: _check(path, record))
    event.listen(engine, "connect", _set_pragmas)
    return engine


def migrating(url: URL) -> Engine:
    """An engine whose transactions hold changes of tables too: a migration that fails leaves nothing half done.

    Python's driver would commit before each of them. Of several processes that start at once, one migrates.
    """
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, poolclass=NullPool)
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "connect", _leave_transactions_alone)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check(path: Path, record: Any) -> None:
    """Raise DisconnectionError, so that the pool opens another connection, which fails if there is no file."""
    if record.info[_FILE] != _identity(path):
        raise DisconnectionError(f"{path} is no longer the file that was opened")


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _leave_transactions_alone(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
