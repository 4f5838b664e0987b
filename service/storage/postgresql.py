"""Connections to PostgreSQL that never wait without end: a server that hangs is one that does not answer.

The server's own limits (`statement_timeout`) are of no use when it is the server that has stopped, and keepalives are
answered by its machine. So the client counts too: a connection whose patience is over is closed, and its statement
has failed. Whether a COMMIT was heard is not known then; its client was told that there is no verdict.
"""

import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

from service.storage.outage import Silence

Result = TypeVar("Result")

_PING = 3.0  # seconds for a connection that is taken from the pool to show that it is alive
_SETTINGS = {
    "connect_timeout": 3,
    # Where a host is gone rather than its server, the network's own timeouts would be minutes.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,
    # A client that froze in the middle of a transaction must not keep its locks from the others.
    "options": "-c statement_timeout=60000 -c lock_timeout=6000 -c idle_in_transaction_session_timeout=60000",
}


class NoAnswer(psycopg.OperationalError, Silence):
    """The server has not answered in time; there is no connection to it any more."""


class PatientConnection(psycopg.Connection[Any]):
    """A connection that waits for `patience` seconds for each answer."""

    patience = _PING

    def wait(self, gen: PQGen[Result], *args: Any, **kwargs: Any) -> Result:
        """Drive an exchange with the server to its end. Raises NoAnswer."""
        try:
            return super().wait(_limited(gen, self.patience), *args, **kwargs)
        except NoAnswer:
            self.close()
            raise


def _limited(exchange: PQGen[Result], seconds: float) -> PQGen[Result]:
    """The same exchange, which ends with NoAnswer if it takes longer; psycopg resumes it ten times a second."""
    end = time.monotonic() + seconds
    try:
        wanted = next(exchange)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > end:
                raise NoAnswer(f"the server has not answered for {seconds:g} seconds")
            wanted = exchange.send(ready)
    except StopIteration as last:
        result: Result = last.value
        return result


def connect(url: URL) -> Engine:
    """Connections that ask whether the server is there before they are used.

    Their execution option `patience` is how many seconds each answer may take.
    """
    if url.drivername == "postgresql":  # SQLAlchemy would look for psycopg2
        url = url.set(drivername="postgresql+psycopg")
    engine = create_engine(url, pool_pre_ping=True, pool_timeout=8, connect_args=_SETTINGS)
    event.listen(engine, "do_connect", _open)
    event.listen(engine, "set_connection_execution_options", _be_patient)
    event.listen(engine, "checkin", _reset)
    return engine


def _open(_dialect: Any, _record: Any, arguments: Any, settings: Any) -> PatientConnection:
    try:
        return PatientConnection.connect(*arguments, **settings)
    except psycopg.errors.ConnectionTimeout as error:
        raise NoAnswer(f"the server lets nobody in: {error}") from error


def _be_patient(connection: Connection, options: Any) -> None:
    if "patience" in options:
        _patient(connection.connection.dbapi_connection).patience = options["patience"]


def _reset(connection: Any, _record: Any) -> None:
    if connection is not None:
        _patient(connection).patience = _PING


def _patient(connection: Any) -> PatientConnection:
    assert isinstance(connection, PatientConnection)
    return connection
