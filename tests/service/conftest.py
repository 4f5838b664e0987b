"""A real service around the tests' artifact, with a database and a picture folder of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings


@pytest.fixture
def settings(artifact_path: Path, tmp_path: Path) -> Settings:
    """A service of category `plate` alone, with fresh data."""
    return Settings(artifacts=artifact_path.parent.parent, data=tmp_path / "data", device="cpu")


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A client of a running service."""
    with TestClient(create_app(settings)) as running:
        yield running


COMMAND = "import typer, service.cli; app = typer.Typer(); service.cli.register(app); app()"


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]:
    """`serving(artifacts, data, **environment)`: a server process on a free port, and its address."""
    return contextmanager(_serving)


def _serving(artifacts: Path, data: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", COMMAND, "serve", "--port", "0", "--device", "cpu"]
    command += ["--artifacts", str(artifacts), "--data", str(data)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment
    )
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if found := re.search(r"listens on (http://\S+)", line):
                yield process, found[1]
                return
        pytest.fail(f"the server ended without a word about its address:\n{said}")
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
