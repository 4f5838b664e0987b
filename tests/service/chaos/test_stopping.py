"""SIGTERM under load: what is in hand is finished and stored, nothing new comes in, and the end is in time."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from service.storage.database import open_database
from service.storage.inspections import Inspections

pytestmark = pytest.mark.slow

Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]
Picture = Callable[[int], bytes]
POST = "/v1/categories/plate/inspections"


def _begin(address: str, picture: bytes) -> socket.socket:
    """A connection over which the first half of a picture has come."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    head = f"POST {POST} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(picture)}\r\n\r\n"
    connection.sendall(head.encode() + picture[: len(picture) // 2])
    return connection


def _ended(connection: socket.socket, picture: bytes) -> bytes:
    """Send the other half; the whole answer."""
    with connection, connection.makefile("rb") as answer:
        connection.sendall(picture[len(picture) // 2 :])
        return answer.read()


def test_what_is_in_hand_is_answered_and_stored(
    serving: Serving,
    cameras: Callable[..., Any],
    artifact_path: Path,
    tmp_path: Path,
    bad: Picture,
    until: Callable[..., None],
) -> None:
    line = cameras(name="stop", count=6)
    picture = bad(1)
    with serving(artifact_path.parent.parent, tmp_path, JIGSIGHT_STOP_SECONDS="15") as (process, address):
        with line.sending(address):
            assert line.first.wait(30)
            half = _begin(address, picture)
            before = len(line.answered)
            until(lambda: len(line.answered) > before + 10, seconds=30)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            until(lambda: _refuses(address), seconds=10)
            answer = _ended(half, picture)
        assert answer.startswith(b"HTTP/1.1 201 ")
        assert b'"verdict":"fail"' in answer
        assert process.wait(timeout=20) == 0
        assert time.monotonic() - begun < 15
    assert not line.wrongly_passed
    assert {each.status_code for each in line.refused} <= {503}
    with closing(open_database(f"sqlite:///{tmp_path / 'jigsight.sqlite'}")) as database:
        stored = Inspections(database)
        for inspection in line.answered.values():
            assert stored.find(UUID(inspection["id"])).verdict == inspection["verdict"]
        at = answer.index(b'"id":"') + 6
        assert stored.find(UUID(answer[at : at + 36].decode())).verdict == "fail"
        unanswered = len(line.sent) - len(line.answered)
        # A camera's last request meets a closed connection, or none: no more than one each has no answer.
        assert unanswered <= line.count + len(line.refused)
    assert "Traceback" not in (tmp_path / "server.log").read_text()


def test_a_delay_is_served_to_its_end_and_a_stuck_client_does_not_prolong_it(
    serving: Serving, artifact_path: Path, tmp_path: Path, good: Picture
) -> None:
    options = {"JIGSIGHT_STOP_DELAY_SECONDS": "2", "JIGSIGHT_STOP_SECONDS": "2", "JIGSIGHT_PRELOAD": "true"}
    with serving(artifact_path.parent.parent, tmp_path, **options) as (process, address):
        assert httpx2.get(f"{address}/v2/health/ready").status_code == 200
        with _begin(address, good(1)):
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            while (ready := httpx2.get(f"{address}/v2/health/ready")).status_code == 200:
                assert time.monotonic() - begun < 1
            assert "stopping" in ready.json()["detail"]
            assert httpx2.get(f"{address}/v2/health/live").status_code == 200
            served = 0
            while time.monotonic() - begun < 1.5:
                assert httpx2.post(address + POST, content=good(2)).status_code == 201
                served += 1
            assert process.wait(timeout=20) == 0
            assert served > 0
            assert 2 <= time.monotonic() - begun < 2 + 2 + 10  # the interpreter's own end on a busy machine


def _refuses(address: str) -> bool:
    host, port = address.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False
