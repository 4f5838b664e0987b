"""The MES example against a server of the test's own, which pages as JigSight documents it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

INSPECTION = {"category": "plate", "station": None, "verdict": "pass", "created_at": "2026-01-02T03:04:05Z"}
Documents = dict[str, Any]


class Pages(ThreadingHTTPServer):
    """Inspections in pages of three, and behind the last an empty one. `dispositions` are of parts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.ids: list[str] = []
        self.dispositions: dict[str, str] = {}
        self.failures = 0
        self.authorization: str | None = None

    def page(self, cursor: str | None) -> Documents:
        """The page that begins at `cursor`."""
        begin = int(cursor or 0)
        items = [INSPECTION | {"id": each} for each in self.ids[begin : begin + 3]]
        return {"items": items, "next": str(begin + len(items))}


class Handler(BaseHTTPRequestHandler):
    server: Pages

    def do_GET(self) -> None:
        self.server.authorization = self.headers["Authorization"]
        asked = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        if self.server.failures:
            self.server.failures -= 1
            self.answer(503, {"detail": "not now"})
        elif asked.path.startswith("/v1/parts/"):
            serial = asked.path.removeprefix("/v1/parts/")
            latest = [INSPECTION | {"id": "1"}]
            found = self.server.dispositions.get(serial)
            if found is None:
                self.answer(404, {"detail": "never seen"})
            else:
                self.answer(200, {"serial": serial, "disposition": found, "latest": latest, "inspections": latest})
        elif query.get("cursor") == "gone":
            self.answer(422, {"detail": "no such cursor"})
        else:
            assert query["order"] == "asc"
            self.answer(200, self.server.page(query.get("cursor")))

    def answer(self, status: int, document: Documents) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def pages() -> Iterator[Pages]:
    with Pages() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def mes(examples: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the example."""

    def start(*arguments: str | Path) -> subprocess.Popen[str]:
        command = [sys.executable, str(examples / "mes.py"), *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def ids_of(process: subprocess.Popen[str], count: int) -> list[str]:
    """The next so many inspections that are printed."""
    assert process.stdout is not None
    return [json.loads(process.stdout.readline())["id"] for _ in range(count)]


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("disposition", "code"), [("pass", 0), ("fail", 1), ("to be thought of", 2)])
def test_a_part(mes: Callable[..., subprocess.Popen[str]], pages: Pages, disposition: str, code: int) -> None:
    pages.dispositions["A-1"] = disposition
    process = mes(pages.address, "part", "A-1")
    said, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert f"A-1: {disposition}" in said


def test_a_part_that_was_never_seen_is_not_passed(mes: Callable[..., subprocess.Popen[str]], pages: Pages) -> None:
    process = mes(pages.address, "part", "A-1")
    said, complaint = process.communicate(timeout=30)
    assert (process.returncode, said) == (2, "")
    assert "never seen" in complaint


def test_a_part_that_nobody_answers_for_is_not_passed(mes: Callable[..., subprocess.Popen[str]], pages: Pages) -> None:
    pages.failures = 1
    process = mes(pages.address, "part", "A-1")
    said, complaint = process.communicate(timeout=30)
    assert (process.returncode, said) == (2, "")
    assert "not now" in complaint


def test_every_inspection_once_while_the_last_page_grows(
    mes: Callable[..., subprocess.Popen[str]], pages: Pages
) -> None:
    pages.ids = list("abcd")
    pages.failures = 1
    process = mes(pages.address, "follow", "--poll", "0.02")
    try:
        assert ids_of(process, 4) == list("abcd")
        for more in ("e", "fgh", "i", "jklmnopq"):  # within the page, over its end, full, and over several
            pages.ids += list(more)
            assert ids_of(process, len(more)) == list(more)
    finally:
        end(process)


def test_it_goes_on_where_it_was(mes: Callable[..., subprocess.Popen[str]], pages: Pages, tmp_path: Path) -> None:
    state = tmp_path / "mes.json"
    pages.ids = list("abcde")
    first = mes(pages.address, "follow", "--poll", "0.02", "--state", state)
    try:
        assert ids_of(first, 5) == list("abcde")
        pages.ids += ["f", "g"]
        # The state behind "e" was stored before anything further was asked for.
        assert ids_of(first, 2) == ["f", "g"]
    finally:
        end(first)
    pages.ids += ["h"]
    second = mes(pages.address, "follow", "--poll", "0.02", "--state", state)
    try:
        repeated = ids_of(second, 1)
        while repeated[-1] != "h":
            repeated += ids_of(second, 1)
    finally:
        end(second)
    assert repeated in (["h"], ["g", "h"], ["f", "g", "h"])


def test_a_cursor_that_the_server_does_not_know_ends_it(
    mes: Callable[..., subprocess.Popen[str]], pages: Pages, tmp_path: Path
) -> None:
    state = tmp_path / "mes.json"
    state.write_text(json.dumps({"cursor": "gone"}))
    process = mes(pages.address, "follow", "--state", state)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "no such cursor" in complaint


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"cursor": null}', "\x00"])
def test_a_state_file_without_a_cursor_ends_it(
    mes: Callable[..., subprocess.Popen[str]], pages: Pages, tmp_path: Path, content: str
) -> None:
    pages.ids = ["a"]
    state = tmp_path / "mes.json"
    state.write_text(content)
    process = mes(pages.address, "follow", "--state", state)
    said, complaint = process.communicate(timeout=30)
    assert process.returncode == 2
    assert said == "", "nothing is booked twice"
    assert "mes.json holds no cursor" in complaint
    assert "Traceback" not in complaint
    assert state.read_text() == content


@pytest.mark.parametrize("command", [("part", "A-1"), ("follow",)])
def test_an_address_that_is_none_ends_it(mes: Callable[..., subprocess.Popen[str]], command: tuple[str, ...]) -> None:
    process = mes("127.0.0.1:8000", *command)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "http://" in complaint


def test_a_serial_that_is_not_utf8_is_not_passed(mes: Callable[..., subprocess.Popen[str]], pages: Pages) -> None:
    process = mes(pages.address, "part", os.fsdecode(b"A-\xff"))
    said, complaint = process.communicate(timeout=30)
    assert (process.returncode, said) == (2, "")
    assert "not UTF-8" in complaint
    assert "Traceback" not in complaint


def test_an_answer_of_something_else_is_not_a_verdict(mes: Callable[..., subprocess.Popen[str]], pages: Pages) -> None:
    process = mes(f"{pages.address}/v1/inspections?order=asc&", "part", "A-1")
    said, complaint = process.communicate(timeout=30)
    assert (process.returncode, said) == (2, ""), complaint
    assert "does not answer as JigSight" in complaint
