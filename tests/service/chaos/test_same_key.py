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

from service.access.keys import digest_of, new_secret
from service.storage.audit import Change
from service.storage.database import open_database
from service.storage.keys import Keys, NewKey

pytestmark = pytest.mark.slow

Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]
Picture = Callable[[int], bytes]
POST = "/v1/categories/plate/inspections"
ROUNDS, EACH = 10, 8


@pytest.fixture(scope="module")
def two(
    serving: Serving, artifact_path: Path, postgresql: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[list[str], list[dict[str, str]]]]:
    """The addresses of two services on one database, and the headers of two cameras."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(host=str(postgresql), user="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    url = f"postgresql://postgres@/{name}?host={postgresql}"
    secrets = [new_secret() for _ in range(2)]
    with closing(open_database(url)) as database:
        for n, secret in enumerate(secrets):
            key = NewKey(name=f"camera-{n}", sha256=digest_of(secret), scopes=frozenset({"inspect", "read"}))
            Keys(database).create(key, change=Change("tests", "create key", f"key camera-{n}"))
    artifacts, data = artifact_path.parent.parent, tmp_path_factory.mktemp("two")
    options = {"JIGSIGHT_DATABASE_URL": url, "JIGSIGHT_KEEP_IMAGES": "none", "JIGSIGHT_PRELOAD": "true"}
    with (
        serving(artifacts, data / "1", **options) as (_, first),
        serving(artifacts, data / "2", **options) as (_, second),
    ):
        yield [first, second], [{"X-API-Key": secret} for secret in secrets]


def test_a_key_is_one_inspection_wherever_it_is_sent(
    two: tuple[list[str], list[dict[str, str]]], good: Picture, bad: Picture
) -> None:
    addresses, (camera, _) = two
    with ThreadPoolExecutor(2 * EACH) as threads, httpx2.Client(timeout=60, headers=camera) as client:
        for n in range(ROUNDS):
            key = {"Idempotency-Key": f"round {n}"}
            start = threading.Barrier(2 * EACH)

            def send(sender: int, key: dict[str, str] = key, start: threading.Barrier = start) -> httpx2.Response:
                start.wait()
                return client.post(addresses[sender % 2] + POST, content=bad(1), params={"serial": "A"}, headers=key)

            answers = list(threads.map(send, range(2 * EACH)))
            assert {each.status_code for each in answers} <= {201, 409}
            judged = [each for each in answers if each.status_code == 201]
            assert len({each.json()["id"] for each in judged}) == 1
            assert {each.json()["verdict"] for each in judged} == {"fail"}
            assert sum("Idempotency-Replayed" not in each.headers for each in judged) == 1
            assert all(each.headers["Retry-After"] == "1" for each in answers if each.status_code == 409)
            for address in addresses:  # another part under this key, in either process
                other = client.post(address + POST, content=good(1), params={"serial": "A"}, headers=key)
                assert other.status_code == 422
                assert "verdict" not in other.json()
        assert len(client.get(f"{addresses[0]}/v1/parts/A").json()["inspections"]) == ROUNDS


def test_a_key_is_its_senders(two: tuple[list[str], list[dict[str, str]]], good: Picture) -> None:
    addresses, cameras = two

    def send(address: str, camera: dict[str, str]) -> httpx2.Response:
        return httpx2.post(address + POST, content=good(1), headers=camera | {"Idempotency-Key": "the same"})

    answers = [[send(address, camera) for address in addresses] for camera in cameras]
    for first, again in answers:
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json() == again.json()
    assert answers[0][0].json()["id"] != answers[1][0].json()["id"]
