"""PostgreSQL stopped at once, or frozen so that it takes connections and answers nothing; then back.

JIGSIGHT_GONE_SECONDS says how long it is away (a few seconds otherwise).
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest

pytestmark = pytest.mark.slow

Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]
Until = Callable[..., None]
Away = Callable[[], AbstractContextManager[None]]
LONGEST = 15.0  # seconds for any answer: the deadline of 10, and a little
CLEAR = {"store-unavailable", "queue-full", "deadline-passed"}
AWAY = os.environ.get("JIGSIGHT_GONE_SECONDS")


@pytest.fixture(scope="module")
def address(
    serving: Serving, artifact_path: Path, postgresql: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A service on a database of its own."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(host=str(postgresql), user="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    url = f"postgresql://postgres@/{name}?host={postgresql}"
    data = tmp_path_factory.mktemp("gone")
    with serving(artifact_path.parent.parent, data, JIGSIGHT_DATABASE_URL=url) as (_, address):
        yield address


@pytest.fixture
def stopped(pg_ctl: str, postgresql: Path) -> Away:
    """PostgreSQL is killed, and started again after the block."""
    user = postgresql.owner()

    def call(*arguments: str) -> None:
        subprocess.run([pg_ctl, *arguments], user=user, cwd=postgresql, stdout=subprocess.DEVNULL, check=True)

    @contextmanager
    def away() -> Iterator[None]:
        call("stop", "-D", f"{postgresql}/data", "-m", "immediate")
        try:
            yield
        finally:
            options = f"-k {postgresql} -c listen_addresses= -c fsync=off"
            call("start", "-w", "-D", f"{postgresql}/data", "-l", f"{postgresql}/log", "-o", options)

    return away


@pytest.fixture
def frozen(postgresql: Path) -> Away:
    """All of PostgreSQL's processes stand still for as long as the block lasts."""

    @contextmanager
    def away() -> Iterator[None]:
        first = int((postgresql / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(first, signal.SIGSTOP)  # it makes no more of them now
        all_of_it = [first, *_children(first)]
        for process in all_of_it:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in reversed(all_of_it):
                os.kill(process, signal.SIGCONT)

    return away


def _children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.parametrize(("how", "seconds"), [("stopped", 3.0), ("frozen", 16.0)])
def test_it_says_so_in_time_and_goes_on_by_itself(
    how: str, seconds: float, address: str, cameras: Callable[..., Any], until: Until, request: pytest.FixtureRequest
) -> None:
    away: Away = request.getfixturevalue(how)
    line = cameras(name=how, count=12)
    with httpx2.Client(base_url=address, timeout=60) as client, line.sending(address):
        assert line.first.wait(30)
        with away():
            end = time.monotonic() + float(AWAY or seconds)
            known = next(iter(line.answered.values()))["links"]["self"]
            for path in ("/v2/health/ready", known, known + "/heatmap", "/v1/inspections", "/v1/statistics"):
                begun = time.monotonic()
                answer = client.get(path)
                assert time.monotonic() - begun < LONGEST
                assert answer.status_code == 503, path
                assert "database does not answer" in answer.json()["detail"]
                assert int(answer.headers["Retry-After"]) >= 1
            assert client.get("/v2/health/live").status_code == 200
            time.sleep(max(end - time.monotonic(), 0))
        until(lambda: client.get("/v2/health/ready").status_code == 200, seconds=5)
        before = len(line.answered)
        until(lambda: len(line.answered) > before + 20, seconds=10)
    assert line.refused
    for answer in line.refused:
        assert answer.status_code == 503
        assert "verdict" not in answer.json()
        assert answer.json()["type"].removeprefix("urn:jigsight:problem:") in CLEAR
    assert max(line.seconds) < LONGEST
    assert not line.wrongly_passed
    _check_all_is_there_once(address, line)


def _check_all_is_there_once(address: str, line: Any) -> None:
    with httpx2.Client(base_url=address, timeout=60) as client:
        for inspection in line.answered.values():
            assert client.get(inspection["links"]["self"]).json() == inspection
        refused = [part for part in line.sent if part.key not in line.answered]
        for part in refused[:30] + refused[-30:]:
            first, again = part.send(client), part.send(client)
            assert (first.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
            assert first.json() == again.json()
            assert len(client.get(f"/v1/parts/{part.key}").json()["inspections"]) == 1
