"""The Dockerfiles: what goes into an image is pinned, checked by hash and there; what runs is not root."""

import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer

import jigsight

ROOT = Path(__file__).parents[2]
LAST = {"service", "training"}


def test_base_images_are_named_by_tag_and_digest(dockerfile: list[Any]) -> None:
    given = [each.rest for each in dockerfile if each.word == "ARG" and each.rest.startswith("PYTHON=")]
    assert len(given) == 1
    assert re.fullmatch(r"PYTHON=python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", given[0])
    stages = {each.stage for each in dockerfile}
    for each in dockerfile:
        if each.word == "FROM":
            source = each.words[0]
            assert source == "${PYTHON}" or source.split("-$")[0] in stages


def test_both_images_have_the_same_python() -> None:
    pinned = {re.search(r"ARG PYTHON=(\S+)", path.read_text())[1] for path in (ROOT / "docker").glob("*.Dockerfile")}
    assert len(pinned) == 1


def test_what_is_copied_exists_and_is_sent_to_the_builder(dockerfile: list[Any]) -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [each.words[:-1] for each in dockerfile if each.word == "COPY" and "--from" not in each.rest]
    for pattern in (word for words in copied for word in words):
        found = list(ROOT.glob(pattern))
        assert found, pattern
        assert all(any(path.relative_to(ROOT).match(allowed) for allowed in sent) for path in found), pattern


def test_the_builder_is_sent_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if line and not line.startswith("#")) == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    code = {"pyproject.toml", "README.md", "LICENSE", "jigsight.py", "models", "training", "service"}
    assert allowed == code | {"docker/*.lock", "docker/torch-cpu.txt"}


def test_nothing_is_installed_unchecked(dockerfile: list[Any]) -> None:
    commands = [part for each in dockerfile if each.word == "RUN" for part in each.rest.split("&&")]
    installing = [command for command in commands if re.search(r"\bpip\b.* (install|wheel) ", command)]
    assert installing
    for command in installing:
        cpu_build = "https://download.pytorch.org/whl/cpu" in command and "--no-deps" in command
        assert "--require-hashes" in command or "--no-index" in command or cpu_build, command


def test_the_image_is_not_run_by_root_and_says_how_it_stops(dockerfile: list[Any]) -> None:
    last = {each.word: each.rest for each in dockerfile if each.stage in LAST}
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last["USER"])
    assert last["STOPSIGNAL"] in {"SIGTERM", "SIGINT"}
    assert not any(each.word == "RUN" and "pip" in each.rest for each in dockerfile if each.stage in LAST)


def test_what_the_image_runs_is_a_command_of_ours(dockerfile: list[Any]) -> None:
    last = {each.word: each.rest for each in dockerfile if each.stage in LAST}
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(last["ENTRYPOINT"])[0] in scripts
    commands = set(typer.main.get_command(jigsight.app).commands)  # type: ignore[attr-defined]
    assert json.loads(last["CMD"])[0] in commands | {"--help"}


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/v2/health/live" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Be silent."""


@pytest.fixture
def answering() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_tells_life_from_death(
    service_dockerfile: list[Any], answering: HTTPServer, status: int, code: int
) -> None:
    check = next(each.rest for each in service_dockerfile if each.word == "HEALTHCHECK")
    _, program, source = json.loads(check[check.index("[") :])
    assert program == "-c"
    answering.status = status  # type: ignore[attr-defined]
    environment = {"JIGSIGHT_PORT": str(answering.server_port)}
    done = subprocess.run([sys.executable, program, source], env=environment, capture_output=True, timeout=60)
    assert done.returncode == code


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="there is no hadolint on the path")
@pytest.mark.parametrize("path", sorted((ROOT / "docker").glob("*.Dockerfile")), ids=lambda path: path.stem)
def test_hadolint_finds_nothing(path: Path) -> None:
    done = subprocess.run(["hadolint", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
