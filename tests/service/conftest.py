"""A real service around the tests' artifact, with a database and a picture folder of its own."""

from collections.abc import Iterator
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
