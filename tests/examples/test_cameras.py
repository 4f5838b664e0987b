"""The cameras' examples, run against a server: in Python, shell and C++. What has no toolchain here is skipped."""

import os
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

Camera = Callable[..., subprocess.CompletedProcess[str]]
Network = Callable[[list[bytes]], AbstractContextManager[Any]]

PYTHON, SHELL, CPP = "camera.py", "camera.sh", "camera.cpp"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
LIE = b'HTTP/1.1 500 Oh\r\nContent-Length: 18\r\nConnection: close\r\n\r\n{"verdict":"pass"}'
REFUSAL = LIE.replace(b"500 Oh", b"422 No")
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
CUT_OFF = b'HTTP/1.1 201 Created\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{"verdict":"pass"'


@pytest.fixture(scope="session")
def compiled(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ camera, without any warning from its compiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    probe = subprocess.run(
        [compiler, "-E", "-x", "c++", "-"], input="#include <curl/curl.h>", text=True, capture_output=True
    )
    if probe.returncode:
        pytest.skip("needs libcurl's headers, as of libcurl4-openssl-dev")
    program = tmp_path_factory.mktemp("cpp") / "camera"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run([compiler, *flags, str(examples / CPP), "-lcurl", "-o", str(program)], check=True)
    return program


@pytest.fixture(params=[PYTHON, SHELL, CPP])
def camera(request: pytest.FixtureRequest, examples: Path) -> Camera:
    """Run a camera: `camera(address, picture, serial)`."""
    if request.param == PYTHON:
        command, before_serial = [sys.executable, str(examples / PYTHON)], ["--serial"]
    elif request.param == SHELL:
        if shutil.which("curl") is None:
            pytest.skip("needs curl")
        command, before_serial = ["sh", str(examples / SHELL)], []
    else:
        command, before_serial = [str(request.getfixturevalue("compiled"))], []

    def run(address: str, picture: Path, serial: str = "A-1", **environment: str) -> subprocess.CompletedProcess[str]:
        arguments = [*command, address, "plate", str(picture), *before_serial, serial]
        environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | environment
        return subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=environ)

    return run


@pytest.mark.parametrize(("picture", "code"), [("pass", 0), ("fail", 1), ("text", 2), ("missing", 2)])
def test_the_exit_code_is_the_verdict(
    camera: Camera, server: str, files: dict[str, Path], picture: str, code: int
) -> None:
    outcome = camera(server, files[picture])
    assert outcome.returncode == code, outcome
    if code == 2:
        assert outcome.stdout == ""
        assert "not judged" in outcome.stderr
    else:
        assert outcome.stdout.startswith(picture)


def test_it_tries_again_as_it_is_told_and_under_the_same_key(
    camera: Camera, unreliable: Network, files: dict[str, Path]
) -> None:
    with unreliable([BUSY, b""]) as network:
        begun = time.monotonic()
        outcome = camera(network.address, files["fail"])
        assert time.monotonic() - begun >= 1.0, "Retry-After is 1 s"
    assert outcome.returncode == 1, outcome
    assert len(network.requests) == len(network.keys) == 3
    assert len(set(network.keys)) == 1
    assert len(network.keys[0]) >= 32


@pytest.mark.parametrize("status", [b"408 No", b"409 Conflict", b"429 No", b"502 No", b"503 No", b"504 No"])
def test_what_may_be_over_soon_is_tried_again(
    camera: Camera, unreliable: Network, files: dict[str, Path], status: bytes
) -> None:
    with unreliable([BUSY.replace(b"503 Service Unavailable\r\nRetry-After: 1", status)]) as network:
        outcome = camera(network.address, files["pass"])
    assert outcome.returncode == 0, outcome
    assert len(network.keys) == 2
    assert len(set(network.keys)) == 1


@pytest.mark.parametrize("answer", [REFUSAL, LIE])
def test_what_will_not_be_over_is_not(
    camera: Camera, unreliable: Network, files: dict[str, Path], answer: bytes
) -> None:
    with unreliable([answer]) as network:
        outcome = camera(network.address, files["pass"])
    assert outcome.returncode == 2, outcome
    assert len(network.requests) == 1
    assert outcome.stdout == ""
    assert "not judged" in outcome.stderr


def test_a_serial_that_is_not_utf8_is_not_judged(camera: Camera, server: str, files: dict[str, Path]) -> None:
    outcome = camera(server, files["pass"], os.fsdecode(b"A-\xff\xfe"))
    assert outcome.returncode == 2, outcome
    assert "not judged" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "localhost", ""])
def test_an_address_that_is_none_is_told_at_once(camera: Camera, files: dict[str, Path], address: str) -> None:
    begun = time.monotonic()
    outcome = camera(address, files["pass"])
    assert time.monotonic() - begun < 10, "it would be tried for 20 s"
    assert outcome.returncode == 2, outcome
    assert "http://" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_an_answer_without_its_figures_is_no_verdict_of_camera_py(
    examples: Path, unreliable: Network, files: dict[str, Path]
) -> None:
    body = b'{"verdict": "pass", "score": "high"}'
    answer = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
    for each in (answer, answer.replace(b'"score"', b'"skore"')):
        with unreliable([each]) as network:
            command = [sys.executable, str(examples / PYTHON), network.address, "plate", str(files["pass"])]
            outcome = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert outcome.returncode == 2, outcome
        assert outcome.stdout == ""
        assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("answer", [REFUSAL, EMPTY])
def test_no_error_is_taken_for_a_pass(
    camera: Camera, unreliable: Network, files: dict[str, Path], answer: bytes
) -> None:
    with unreliable([answer]) as network:
        outcome = camera(network.address, files["fail"])
    assert outcome.returncode == 2, outcome
    assert "pass" not in outcome.stdout


@pytest.mark.parametrize("answer", [LIE, CUT_OFF])
def test_a_server_error_and_half_an_answer_are_no_pass_either(
    camera: Camera, unreliable: Network, files: dict[str, Path], answer: bytes
) -> None:
    with unreliable([answer]) as network:
        outcome = camera(network.address, files["fail"])
    assert outcome.returncode in (1, 2), "another try may have had the true verdict"
    assert "pass" not in outcome.stdout


def test_a_serial_may_hold_anything_and_a_key_is_sent(
    camera: Camera, unreliable: Network, files: dict[str, Path]
) -> None:
    serial = 'ä &%+"verdict":"fail"'
    with unreliable([]) as network:
        outcome = camera(network.address, files["pass"], serial, JIGSIGHT_KEY="jsk_test")
    assert outcome.returncode == 0, outcome
    asked = urllib.parse.urlsplit(network.requests[0].split(b" ")[1].decode())
    assert urllib.parse.parse_qs(asked.query) == {"serial": [serial]}
    assert b"Authorization: Bearer jsk_test" in network.requests[0]


def test_two_parts_have_two_keys(camera: Camera, unreliable: Network, files: dict[str, Path]) -> None:
    with unreliable([]) as network:
        camera(network.address, files["pass"])
        camera(network.address, files["pass"])
    assert len(set(network.keys)) == 2
