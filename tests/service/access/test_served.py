"""Keys beside a running service: made, used and revoked while it runs; and its API as it says, with one."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import pytest
import schemathesis
import typer
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from typer.testing import CliRunner

from service import cli

CHECKED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    ignored_auth,
]
Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]


def keys(data: Path, *arguments: str) -> str:
    """`jigsight keys ...`, in this process and not the server's: what it prints."""
    application = typer.Typer()
    cli.register(application)
    outcome = CliRunner().invoke(application, ["keys", *arguments, "--data", str(data)])
    assert outcome.exit_code == 0
    return outcome.stdout.strip()


def until(client: httpx2.Client, status: int, **headers: str) -> None:
    deadline = time.monotonic() + 30
    while client.get("/v1/categories", headers=headers).status_code != status:
        assert time.monotonic() < deadline, f"no {status}"
        time.sleep(0.05)


def test_keys_are_made_and_revoked_while_it_runs(serving: Serving, artifact_path: Path, tmp_path: Path) -> None:
    with serving(artifact_path.parent.parent, tmp_path) as (_, address), httpx2.Client(base_url=address) as client:
        assert client.get("/v1/categories").status_code == 200
        assert client.get("/v1/categories", headers={"Host": "evil.example"}).status_code == 403
        assert "server" not in client.get("/v1/categories").headers
        secret = keys(tmp_path, "create", "mes", "--scope", "read")
        until(client, 401)
        assert client.get("/v1/categories", headers={"X-API-Key": secret}).status_code == 200
        keys(tmp_path, "revoke", "mes")
        until(client, 401, Authorization=f"Bearer {secret}")
    log = (tmp_path / "server.log").read_text()
    assert re.search(r"key\W+mes\b", log), "who rotates keys sees which one is used"
    assert secret not in log


def test_with_a_key_others_may_reach_it(serving: Serving, artifact_path: Path, tmp_path: Path) -> None:
    secret = keys(tmp_path, "create", "mes", "--scope", "read")
    with serving(artifact_path.parent.parent, tmp_path, JIGSIGHT_HOST="0.0.0.0") as (_, address):
        local = address.replace("0.0.0.0", "127.0.0.1")
        assert httpx2.get(f"{local}/v1/categories").status_code == 401
        assert httpx2.get(f"{local}/v1/categories", headers={"X-API-Key": secret}).status_code == 200


@pytest.fixture(scope="module")
def guarded(
    serving: Serving, artifact_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """A server that needs a key, and one for everything."""
    data = tmp_path_factory.mktemp("data")
    secret = keys(data, "create", "all", "--scope", "admin")
    with serving(artifact_path.parent.parent, data) as (_, address):
        yield address, secret


@pytest.mark.parametrize("way", ["Authorization", "X-API-Key"])
def test_the_api_is_as_it_says_with_a_key(guarded: tuple[str, str], way: str) -> None:
    address, secret = guarded
    headers = {way: f"Bearer {secret}" if way == "Authorization" else secret}
    document = schemathesis.openapi.from_url(f"{address}/openapi.json")
    document.config.generation.with_security_parameters = False  # it would send nonsense beside the key
    answered = set()
    for found in document.get_all_operations():
        operation = found.ok()

        @settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy())
        def probe(case: schemathesis.Case) -> None:
            answered.add(case.call_and_validate(checks=CHECKED, headers=headers).status_code)

        probe()
    assert 200 in answered
    assert not answered & {401, 403}


def test_the_api_is_as_it_says_without_one(guarded: tuple[str, str]) -> None:
    document = schemathesis.openapi.from_url(f"{guarded[0]}/openapi.json")
    answered = set()
    for found in document.get_all_operations():
        operation = found.ok()

        @settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy())
        def probe(case: schemathesis.Case) -> None:
            answered.add(case.call_and_validate(checks=CHECKED).status_code)

        probe()
    assert {200, 401} <= answered
