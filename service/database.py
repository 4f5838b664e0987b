"""Opening the database: SQLite's durability settings, and migrations to the newest schema.

SQLite runs in WAL mode with `synchronous=FULL`: what is committed survives a power cut.
"""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from service.errors import StartupError

_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000")


def open_database(url: str) -> Engine:
    """A database at the newest schema. Raises StartupError if it cannot be opened, or is newer than that."""
    try:
        engine = _connectable(url)
        _migrate(engine)
    except CommandError as error:
        raise StartupError(f"The database was made by a newer JigSight ({error}). Use that one.") from error
    except (SQLAlchemyError, OSError, ImportError) as error:
        shown = url.split("@")[-1]  # without a password
        raise StartupError(f"The database {shown} cannot be opened: {error}") from error
    return engine


def _connectable(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StartupError("JIGSIGHT_DATABASE_URL is not a database URL such as sqlite:///file.") from error
    engine = create_engine(parsed, pool_pre_ping=True)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _set_pragmas)
    return engine


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", "service:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
