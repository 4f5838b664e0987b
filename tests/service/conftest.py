"""A real service around the tests' artifact, with a database and a picture folder of its own.

What goes into a database is tested on SQLite and on PostgreSQL: `database_url` gives a test one of each. The server is
started from the system's packages, and tests that need it are skipped, saying so, where there is none. S3 is what
moto's server understands by it.
"""

import getpass
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import psycopg
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from starlette.testclient import TestClient

from models.artifact import Artifact
from service.access.keys import digest_of, new_secret
from service.access.principal import Scope
from service.app import create_app
from service.settings import Settings
from service.storage.artifacts import Artifacts
from service.storage.audit import Change
from service.storage.database import Database, open_database
from service.storage.inspections import Addition, Inspections, Record
from service.storage.keys import Keys, NewKey
from service.uuid7 import uuid7

NOON = datetime(2030, 1, 2, 12, tzinfo=UTC)
MAP = np.zeros((2, 3), np.float16)


@pytest.fixture
def settings(artifact_path: Path, tmp_path: Path) -> Settings:
    """A service of category `plate` alone, with fresh data. In float32: scores are the same to many digits."""
    return Settings(
        artifacts=artifact_path.parent.parent,
        data=tmp_path / "data",
        device="cpu",
        precision="float32",
        open_hosts=("testserver",),
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A client of a running service."""
    with TestClient(create_app(settings)) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new folder' / '100%.sqlite'}"
    host: Path = request.getfixturevalue("postgresql")
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(host=str(host), user="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"postgresql://postgres@/{name}?host={host}"


@pytest.fixture
def database(database_url: str, artifact: Artifact) -> Iterator[Database]:
    """An open database that has seen the tests' artifact."""
    opened = open_database(database_url)
    Artifacts(opened).remember([(artifact.version, artifact.manifest)])
    yield opened
    opened.close()


@pytest.fixture
def make_record(artifact: Artifact) -> Callable[..., Record]:
    """Inspections of the tests' artifact that passed, but for what is said; no two have the same id."""

    def make(**changes: Any) -> Record:
        moment = changes.setdefault("created_at", NOON)
        record = Record(
            id=uuid7(moment),
            category="plate",
            version=artifact.version,
            serial=None,
            station=None,
            verdict="pass",
            score=0.5,
            threshold=1.0,
            p_value=12 / 25,
            regions=[],
            width=128,
            height=96,
            image_sha256="0" * 64,
            image_media_type="image/png",
            image_kept=False,
            created_at=moment,
            durations={"decode_ms": 1.0, "queue_ms": 2.0, "inference_ms": 3.0},
        )
        return replace(record, **changes)

    return make


@pytest.fixture
def add() -> Callable[..., None]:
    """Store inspections in a database, in this order."""
    return lambda database, *records: Inspections(database).add([Addition(record, MAP) for record in records])


@pytest.fixture(scope="session")
def pg_ctl() -> str:
    """The path of PostgreSQL's own command to start and stop servers."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    control = str(found[-1]) if found else shutil.which("pg_ctl")
    if control is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    return control


@pytest.fixture(scope="session")
def postgresql(pg_ctl: str) -> Iterator[Path]:
    """The folder in which a PostgreSQL server of the tests' own has its socket."""
    with running_postgresql(pg_ctl) as folder:
        yield folder


@contextmanager
def running_postgresql(control: str) -> Iterator[Path]:
    """A server that keeps everything in a folder that is removed; `control` is the path of its pg_ctl."""
    # PostgreSQL will not run as root; the package made it an account of its own.
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    folder = Path(tempfile.mkdtemp(prefix="jigsight-pg-"))  # the path of a socket must be short
    shutil.chown(folder, user)
    data, log = folder / "data", folder / "log"

    def call(*arguments: str) -> None:
        done = subprocess.run([control, *arguments], user=user, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"

    try:
        call("initdb", "-D", str(data), "-o", "-A trust -U postgres --no-sync")
        # Not synced: nothing that these tests are about depends on a power cut.
        call("start", "-w", "-D", str(data), "-l", str(log), "-o", f"-k {folder} -c listen_addresses= -c fsync=off")
        yield folder
    finally:
        subprocess.run(
            [control, "stop", "-D", str(data), "-m", "immediate"],
            user=user,
            cwd=folder,
            capture_output=True,
            check=False,
        )
        shutil.rmtree(folder)


@pytest.fixture
def issue() -> Callable[..., str]:
    """`issue(database, name, *scopes, ...)`: a new key's secret, stored with its rate limit or expiry if given."""

    def store(database: Database, name: str, *scopes: Scope, **limits: Any) -> str:
        secret = new_secret()
        key = NewKey(name=name, sha256=digest_of(secret), scopes=frozenset(scopes), **limits)
        Keys(database).create(key, change=Change("tests", "create key", f"key {name}"))
        return secret

    return store


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of a server that speaks S3 and keeps everything in memory."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Makes empty buckets, and sets what the environment of their user must say."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    def make() -> str:
        name = f"line-{uuid.uuid4()}"
        client = boto3.client("s3")
        client.create_bucket(Bucket=name)
        client.close()
        return name

    return make
