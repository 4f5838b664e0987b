"""Requests as bytes on a real connection: slow, endless, ambiguous, or with names that are not theirs to say."""

import gzip
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import httpx2
import pytest

from service.connection_limits import MOST_HEAD_BYTES

POST = "/v1/categories/plate/inspections"
THRESHOLD = "/v1/categories/plate/threshold"
HEAD = f"POST {POST} HTTP/1.1\r\nHost: localhost\r\n".encode()
Picture = Callable[[int], bytes]
Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]
LIMITS = {"JIGSIGHT_MAX_BODY_BYTES": "1000000", "JIGSIGHT_UPLOAD_SECONDS": "1", "JIGSIGHT_HEAD_SECONDS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def address(serving: Serving, artifact_path: Path, data: Path) -> Iterator[str]:
    """A server that waits for a second."""
    with serving(artifact_path.parent.parent, data, **LIMITS) as (process, address):
        yield address
        assert process.poll() is None
        log = (data / "server.log").read_text()
        assert "Traceback" not in log
        events = [json.loads(line) for line in log.splitlines()]  # whatever was sent, a line is an event
        assert not [event for event in events if event["level"] == "error"]


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def answer(address: str, *pieces: bytes) -> bytes:
    """Whatever comes until the server closes the connection, which it may do before all is sent."""
    with connect(address) as connection:
        received = b""
        with suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        with suppress(ConnectionError):
            while piece := connection.recv(65536):
                received += piece
        return received


def status(address: str, *pieces: bytes) -> int:
    return int(answer(address, *pieces).split()[1])


def test_who_says_nothing_is_not_kept(address: str) -> None:
    assert answer(address) == b""


@pytest.mark.parametrize("sent", [b"GET /v2 HT", HEAD + b"X-Header: val"])
def test_a_head_that_does_not_end_in_time(address: str, sent: bytes) -> None:
    assert status(address, sent) == 408


def test_a_head_that_trickles_in(address: str) -> None:
    """Byte by byte, so that something comes all the time."""
    with connect(address) as connection:
        connection.settimeout(0.05)
        for _ in range(400):
            with suppress(TimeoutError):
                assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
                return
            connection.sendall(b"a" if _ else b"GET /")
        pytest.fail("it was listened to for 20 seconds")


def test_a_head_without_an_end_is_not_gathered(address: str) -> None:
    half = b"a" * MOST_HEAD_BYTES
    assert b" 431 " in answer(address, b"GET /" + half, half)[:20]
    assert b" 431 " in answer(address, HEAD + b"X: " + half, half)[:20]


def test_trailers_without_an_end_are_not_gathered(address: str, good: Picture) -> None:
    trailers = b"T: " + b"a" * MOST_HEAD_BYTES
    begun = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    assert not answer(address, begun, trailers, trailers).startswith(b"HTTP/1.1 2")


@pytest.mark.parametrize("path", [POST, "/v2/models/plate/infer", "/v2/repository/index", THRESHOLD])
def test_a_body_that_stalls(address: str, path: str) -> None:
    method = "PUT" if path == THRESHOLD else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    answered = answer(address, head.encode() + b"abc")
    assert answered.startswith(b"HTTP/1.1 408 ")
    assert b"JIGSIGHT_UPLOAD_SECONDS" in answered


def test_a_body_that_nobody_reads_is_not_waited_for(address: str) -> None:
    head = "POST /v1/categories/plate/rollback HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    assert answer(address, head.encode() + b"{").startswith(b"HTTP/1.1 409 ")  # and it is over


def test_a_chunked_body_that_is_too_large(address: str) -> None:
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    assert status(address, HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n", *[chunk] * 20) == 413


@pytest.mark.parametrize("path", [THRESHOLD, "/v2/repository/index", "/v2/models/plate/infer"])
def test_json_that_is_too_large(address: str, path: str) -> None:
    method = "PUT" if path == THRESHOLD else "POST"
    json_type = {"content-type": "application/json"}
    answered = httpx2.request(method, address + path, content=b" " * 1_000_001, headers=json_type)
    assert answered.status_code == 413
    assert "JIGSIGHT_MAX_BODY_BYTES" in answered.text


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 900_000,
        b"[" * 4000,
        b'{"a":' * 150_000,
        b'{"a":' * 800,
        b'{"value":' + b"9" * 900_000 + b"}",
        b'{"value":' + b"9" * 4000 + b"}",
        b"\xff{",
        b'{"value":1e999}',
    ],
)
@pytest.mark.parametrize("path", [THRESHOLD, "/v2/models/plate/infer"])
def test_json_that_is_a_trap(address: str, path: str, body: bytes) -> None:
    method = "PUT" if path == THRESHOLD else "POST"
    answered = httpx2.request(method, address + path, content=body, headers={"content-type": "application/json"})
    assert answered.status_code in {400, 413, 422}


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length : 5\r\n",
        b"X: a\r\n b\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"X: a\0b\r\nContent-Length: 5\r\n",
    ],
)
def test_where_a_request_ends_is_never_guessed(address: str, framing: bytes) -> None:
    assert status(address, HEAD + framing + b"\r\n0\r\n\r\nGET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n") == 400


def test_five_hundred_who_say_nothing_stop_no_camera(
    serving: Serving, artifact_path: Path, tmp_path: Path, good: Picture
) -> None:
    with serving(artifact_path.parent.parent, tmp_path) as (_, address), ExitStack() as kept:
        for number in range(500):
            idle = kept.enter_context(connect(address))
            if number % 2:
                idle.sendall(HEAD)
        with httpx2.Client(base_url=address, timeout=10) as camera:
            assert [camera.post(POST, content=good(seed)).status_code for seed in range(5)] == [201] * 5


@pytest.mark.parametrize(
    "name", ["%00", "plate%00", "..%2f..%2fetc", "%2e%2e", "%0d%0aX-Evil:%201", "%ff", "a" * 60_000]
)
def test_categories_that_cannot_be(address: str, name: str) -> None:
    for request in (
        f"POST /v1/categories/{name}/inspections",
        f"GET /v1/categories/{name}",
        f"GET /v2/models/{name}",
        f"PUT /v1/categories/{name}/threshold",
    ):
        body = '{"value": 3}'
        head = f"{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
        answered = answer(address, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        assert answered.startswith(b"HTTP/1.1 404 ")
        assert b"\r\nx-evil" not in answered.lower()


@pytest.mark.parametrize(
    "query",
    [
        *("serial=%0aX", "serial=%00", "serial=%ff", "serial=%C2%85", "serial=%E2%80%A8", "serial=" + "a" * 129),
        *("serial=a&serial=b", "seral=a", "timeout_ms=nan", "timeout_ms=1e400", "%" * 50),
    ],
)
def test_queries_that_cannot_be(address: str, good: Picture, query: str) -> None:
    picture = good(1)
    head = f"POST {POST}?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(picture)}\r\n"
    assert status(address, head.encode() + b"Connection: close\r\n\r\n" + picture) == 422


@pytest.mark.parametrize("wished", [b"a\tb", b"a b", b"x" * 200, b"\xc3\xa4", b'{"level": "error"}'])
def test_request_ids_that_would_confuse_a_log_are_replaced(address: str, wished: bytes) -> None:
    answered = httpx2.get(f"{address}/v2", headers={"X-Request-ID": wished})
    assert answered.status_code == 200
    assert answered.headers["x-request-id"].isalnum()


@pytest.mark.parametrize("key", [b"a\tb", b"\xff", b"x" * 256])
def test_keys_that_cannot_be(address: str, good: Picture, key: bytes) -> None:
    assert httpx2.post(address + POST, content=good(1), headers={"Idempotency-Key": key}).status_code == 422


def test_a_compressed_body_is_refused(address: str, good: Picture) -> None:
    for path in (POST, "/v2/models/plate/infer"):
        for body in (gzip.compress(good(1)), good(1)):
            answered = httpx2.post(address + path, content=body, headers={"Content-Encoding": "gzip"})
            assert (answered.status_code, "encoded as 'gzip'" in answered.text) == (415, True)
    assert httpx2.post(address + POST, content=good(1), headers={"Content-Encoding": "identity"}).status_code == 201


@pytest.mark.parametrize(
    "begin", [b"GIF89a", b"%PDF-1.7", b"<svg/>", b"\0\0\0\x18ftypheic", b"\x1f\x8b\x08", b"PK\3\4"]
)
def test_a_name_makes_no_picture(address: str, begin: bytes) -> None:
    files = {"image": ("part.png", begin + bytes(100), "image/png")}
    assert httpx2.post(address + POST, files=files).status_code == 415
    headers = {"Content-Type": "image/png"}
    assert httpx2.post(address + POST, content=begin + bytes(100), headers=headers).status_code == 415


FILE = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n'


@pytest.mark.parametrize(
    "form",
    [
        b"--xx\r\n" + FILE + b"X: " + b"a" * 200_000 + b"\r\n\r\n%s\r\n--xx--\r\n",
        b"--xx\r\n" + FILE + b"X: a\r\n" * 50_000 + b"\r\n%s\r\n--xx--\r\n",
        b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 15_000 + b"--xx--\r\n",
        b'--xx\r\nContent-Disposition: form-data; name="image"\r\nContent-Type: multipart/mixed; boundary=yy\r\n\r\n'
        b"--yy\r\n" + FILE + b"\r\n%s\r\n--yy--\r\n--xx--\r\n",
        b'--xx\r\nContent-Disposition: form-data; filename="a.png"\r\n\r\n%s\r\n--xx--\r\n',
        b"--xx\r\n\r\n%s\r\n--xx--\r\n",
        b"--yy\r\n" + FILE + b"\r\n%s\r\n--yy--\r\n",
    ],
    ids=["huge header", "many headers", "many parts", "nested", "no name", "no disposition", "another boundary"],
)
def test_forms_that_are_traps(address: str, good: Picture, form: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=xx"}
    answered = httpx2.post(address + POST, content=form.replace(b"%s", good(1)), headers=headers)
    assert answered.status_code == 400


def test_after_all_that_it_judges(address: str, good: Picture, bad: Picture) -> None:
    assert httpx2.post(address + POST, content=good(1)).json()["verdict"] == "pass"
    assert httpx2.post(address + POST, content=bad(1)).json()["verdict"] == "fail"
