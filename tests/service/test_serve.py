"""`jigsight serve` as a process of its own: start, limits on the wire, ending, kill -9, and its whole API."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from service.access.keys import digest_of, new_secret
from service.storage.audit import Change
from service.storage.database import open_database
from service.storage.keys import Keys, NewKey

POST = "/v1/categories/plate/inspections"
Picture = Callable[[int], bytes]
Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]


@pytest.fixture(scope="module")
def address(serving: Serving, artifact_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that the tests of this module share."""
    data = tmp_path_factory.mktemp("data")
    with serving(artifact_path.parent.parent, data, JIGSIGHT_MAX_BODY_BYTES="1000000") as (_, address):
        yield address


def test_it_judges_over_a_real_connection(address: str, good: Picture, bad: Picture) -> None:
    with httpx2.Client(base_url=address) as client:
        assert client.get("/v2/health/ready").status_code == 200
        assert client.post(POST, content=good(1)).json()["verdict"] == "pass"
        answer = client.post(POST, files={"image": ("a.png", bad(1))})
        assert answer.json()["verdict"] == "fail"
        assert client.get(answer.headers["location"]).json() == answer.json()
        assert client.get(answer.json()["links"]["heatmap"]).headers["content-type"] == "image/png"
        assert client.get("/docs").status_code == 200


def test_serials_come_through_a_real_connection(address: str, good: Picture) -> None:
    with httpx2.Client(base_url=address) as client:
        for serial in ("100%2F", "a/../b", "LOT/7 №?"):
            wanted = client.post(POST, content=good(1), params={"serial": serial}).json()
            part = client.get(f"/v1/parts/{quote(serial, safe='')}").json()
            assert part["inspections"] == [wanted]
            assert client.get(part["links"]["self"].replace("/../", "/%2E%2E/")).json() == part


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"POST {POST} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000001\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_goes_away_leaves_no_trace(address: str, good: Picture) -> None:
    host, port = address.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(f"POST {POST} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n".encode())
            connection.sendall(good(1)[:1000])
    assert httpx2.post(address + POST, content=good(1)).status_code == 201


def test_nothing_answered_is_lost_by_kill_9(
    serving: Serving, artifact_path: Path, tmp_path: Path, good: Picture
) -> None:
    artifacts = artifact_path.parent.parent
    answered = []
    with serving(artifacts, tmp_path) as (process, address), httpx2.Client(base_url=address) as client:
        for seed in range(5):
            answered.append(client.post(POST, content=good(seed)).json())
        process.kill()
        process.wait()
    with serving(artifacts, tmp_path) as (_, address), httpx2.Client(base_url=address) as client:
        for inspection in answered:
            assert client.get(inspection["links"]["self"]).json() == inspection
            assert client.get(inspection["links"]["heatmap"]).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(
    serving: Serving, artifact_path: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with serving(artifact_path.parent.parent, tmp_path) as (process, address):
        assert httpx2.get(f"{address}/v1/inspections").status_code == 200  # in a thread that is idle afterwards
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        log = (tmp_path / "server.log").read_text()
        assert "Traceback" not in log
        assert "threads left: none" in log


# `JIGSIGHT_TEST_EXAMPLES=200 pytest tests/service/test_serve.py -k api_is` looks more closely, for some minutes.
EXAMPLES = int(os.environ.get("JIGSIGHT_TEST_EXAMPLES", "15"))
CHECKED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    unsupported_method,
]


@pytest.fixture(scope="module")
def guarded(
    serving: Serving, artifact_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a server that wants keys, and the headers of its administrator."""
    data = tmp_path_factory.mktemp("guarded")
    secret = new_secret()
    with closing(open_database(f"sqlite:///{data / 'jigsight.sqlite'}")) as database:
        key = NewKey(name="tests", sha256=digest_of(secret), scopes=frozenset({"admin"}))
        Keys(database).create(key, change=Change("tests", "create key", "key tests"))
    with serving(artifact_path.parent.parent, data, JIGSIGHT_MAX_BODY_BYTES="1000000") as (_, address):
        yield address, {"Authorization": f"Bearer {secret}"}


def test_the_api_is_as_it_says(address: str) -> None:
    assert probed(address, headers={}, checks=CHECKED) == 27


def test_the_api_is_as_it_says_with_keys_too(guarded: tuple[str, dict[str, str]]) -> None:
    address, headers = guarded
    assert probed(address, headers=headers, checks=[*CHECKED, ignored_auth]) == 27


def probed(address: str, *, headers: dict[str, str], checks: list[Any]) -> int:
    """How many operations there are; all have answered as the document says, whatever they were sent."""
    document = schemathesis.openapi.from_url(f"{address}/openapi.json")
    labels = []
    for found in document.get_all_operations():
        operation = found.ok()
        labels.append(operation.label)
        for mode in GenerationMode:

            @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
            @given(operation.as_strategy(generation_mode=mode))
            def probe(case: schemathesis.Case) -> None:
                case.call_and_validate(checks=checks, headers=headers)

            # Nothing can be wrong with a request that has no parameters.
            with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():
                probe()
    return len(labels)
