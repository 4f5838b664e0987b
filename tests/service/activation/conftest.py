"""A service with two versions of `plate`, the older one active; and servers on real sockets."""

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from service.state import Service


@pytest.fixture(scope="session")
def two(make: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two versions of `plate`, the older first. Not to be changed."""
    folder = tmp_path_factory.mktemp("two")
    made = [make(folder, seed=seed) for seed in (1, 2)]
    for minute, path in enumerate(made):
        os.utime(path, (1_700_000_000 + 60 * minute,) * 2)
    return made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A service whose folder tests fill, and which is looked through only when they say so."""
    (tmp_path / "artifacts" / "plate").mkdir(parents=True)
    return Settings(
        artifacts=tmp_path / "artifacts",
        data=tmp_path / "data",
        device="cpu",
        open_hosts=("testserver",),
        scan_seconds=1e6,
        precision="float32",  # what `load` alone gives computes in that, and is compared with
    )


@pytest.fixture
def put(settings: Settings) -> Callable[[Path], Path]:
    """Copy an artifact into the service's folder."""

    def copy(path: Path) -> Path:
        target = settings.artifacts / "plate" / path.name
        shutil.copy2(path, target)
        return target

    return copy


@pytest.fixture
def both(put: Callable[[Path], Path], two: list[Path], settings: Settings) -> Iterator[TestClient]:
    """A service in which the older version judges, and the newer one waits."""
    put(two[0])
    with TestClient(create_app(settings)) as client:
        put(two[1])
        service: Service = client.app_state["service"]
        service.registry.look()
        yield client


@pytest.fixture
def on_a_socket() -> Callable[[Settings], AbstractContextManager[str]]:
    """A server of its own for a while; the address is given."""
    return _on_a_socket


@contextmanager
def _on_a_socket(settings: Settings) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
