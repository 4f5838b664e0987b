"""A server process, pictures as files, and an unreliable network in between."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder of the examples."""
    return EXAMPLES


@pytest.fixture(scope="session")
def server(serving: Serving, artifact_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of category `plate`."""
    with serving(artifact_path.parent.parent, tmp_path_factory.mktemp("data")) as (_, address):
        yield address


@pytest.fixture
def files(tmp_path: Path, good: Callable[[int], bytes], bad: Callable[[int], bytes]) -> dict[str, Path]:
    """Pictures by what becomes of them."""
    contents = {"pass": good(1), "fail": bad(1), "text": b"not a picture"}
    paths = {name: tmp_path / f"{name}.png" for name in contents}
    for name, data in contents.items():
        paths[name].write_bytes(data)
    return paths | {"missing": tmp_path / "missing.png"}


class Unreliable:
    """Takes connections one at a time: answers the first few as told, and hands the others on to the server.

    An entry of `first` is sent instead of an answer; b"" ends the connection without one. `keys` are the idempotency
    keys that came.
    """

    def __init__(self, server: str, first: list[bytes]) -> None:
        host, port = server.removeprefix("http://").split(":")
        self.upstream = (host, int(port))
        self.first = list(first)
        self.requests: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def keys(self) -> list[str]:
        """The idempotency keys that came."""
        lines = [line for request in self.requests for line in request.split(b"\r\n\r\n")[0].split(b"\r\n")]
        found = [line.partition(b":") for line in lines]
        return [value.strip().decode() for name, _, value in found if name.lower() == b"idempotency-key"]

    def run(self) -> None:
        """Serve until the listener is closed."""
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection, suppress(OSError):
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        request = _read_request(connection)
        self.requests.append(request)
        if self.first:
            connection.sendall(self.first.pop(0))
            return
        with socket.create_connection(self.upstream, timeout=30) as upstream:
            upstream.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            while data := upstream.recv(65536):
                connection.sendall(data)


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(headers[b"content-length"]):
        body += _some(connection)
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"expect:", b"connection:"))]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError
    return data


@contextmanager
def between(server: str, first: list[bytes]) -> Iterator[Unreliable]:
    """An unreliable network in front of a server."""
    network = Unreliable(server, first)
    thread = threading.Thread(target=network.run)
    thread.start()
    try:
        yield network
    finally:
        network.listener.shutdown(socket.SHUT_RDWR)
        network.listener.close()
        thread.join()


@pytest.fixture
def unreliable(server: str) -> Callable[[list[bytes]], AbstractContextManager[Unreliable]]:
    """`between` the tests' server and a client."""
    return lambda first: between(server, first)
