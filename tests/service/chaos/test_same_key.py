"""One Idempotency-Key, many requests at once, two processes on one database: one inspection."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from pathlib import Path
from uuid import uuid4

import httpx2
import psycopg
import pytest

from service.storage.database import open_database

Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]
Picture = Callable[[int], bytes]
POST = "/v1/categories/plate/inspections"
ROUNDS, EACH = 10, 8


@pytest.fixture(scope="module")
def database_url(postgresql: Path) -> str:
    """A database that two processes share."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(host=str(postgresql), user="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"postgresql://postgres@/{name}?host={postgresql}"


@pytest.fixture
def two(serving: Serving, artifact_path: Path, tmp_path: Path, database_url: str) -> Iterator[list[str]]:
    """The addresses of two services on one database."""
    artifacts = artifact_path.parent.parent
    options = {"JIGSIGHT_DATABASE_URL": database_url, "JIGSIGHT_KEEP_IMAGES": "none", "JIGSIGHT_PRELOAD": "true"}
    with (
        serving(artifacts, tmp_path / "1", **options) as (_, first),
        serving(artifacts, tmp_path / "2", **options) as (_, second),
    ):
        yield [first, second]


def test_a_key_is_one_inspection_wherever_it_is_sent(
    two: list[str], database_url: str, issue: Callable[..., str], good: Picture, bad: Picture
) -> None:
    with ThreadPoolExecutor(2 * EACH) as threads, httpx2.Client(timeout=60) as client:
        for n in range(ROUNDS):
            key = {"Idempotency-Key": f"round {n}"}
            start = threading.Barrier(2 * EACH)

            def send(sender: int, key: dict[str, str] = key, start: threading.Barrier = start) -> httpx2.Response:
                start.wait()
                return client.post(two[sender % 2] + POST, content=bad(1), params={"serial": "A"}, headers=key)

            answers = list(threads.map(send, range(2 * EACH)))
            assert {each.status_code for each in answers} <= {201, 409}
            judged = [each for each in answers if each.status_code == 201]
            assert len({each.json()["id"] for each in judged}) == 1
            assert {each.json()["verdict"] for each in judged} == {"fail"}
            assert sum("Idempotency-Replayed" not in each.headers for each in judged) == 1
            assert all(each.headers["Retry-After"] == "1" for each in answers if each.status_code == 409)
            for address in two:  # another part under this key, in either process
                other = client.post(address + POST, content=good(1), params={"serial": "A"}, headers=key)
                assert other.status_code == 422
                assert "verdict" not in other.json()
        assert len(client.get(f"{two[0]}/v1/parts/A").json()["inspections"]) == ROUNDS


def test_a_key_is_its_senders(
    two: list[str], database_url: str, issue: Callable[..., str], good: Picture, until: Callable[..., None]
) -> None:
    with closing(open_database(database_url)) as database:
        secrets = [issue(database, name, "inspect") for name in ("camera-1", "camera-2")]

    def send(address: str, secret: str) -> httpx2.Response:
        headers = {"X-API-Key": secret, "Idempotency-Key": "the same"}
        return httpx2.post(address + POST, content=good(1), headers=headers)

    until(lambda: all(httpx2.get(f"{each}/v1/categories").status_code == 401 for each in two), seconds=10)
    answers = [[send(address, secret) for address in two] for secret in secrets]
    for first, again in answers:
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json() == again.json()
    assert answers[0][0].json()["id"] != answers[1][0].json()["id"]
