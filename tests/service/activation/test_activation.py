"""Activation and rolling back over HTTP, while pictures keep coming; what is refused."""

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from models.artifact import load
from models.images import decode
from service.app import create_app
from service.runs import detect
from service.settings import Settings
from service.state import Service
from service.storage.tables import AUDIT

POST = "/v1/categories/plate/inspections"
PLATE = "/v1/categories/plate"
Picture = Callable[[int], bytes]
Socket = Callable[[Settings], AbstractContextManager[str]]


def running(client: TestClient) -> Service:
    service: Service = client.app_state["service"]
    return service


def test_a_newer_version_waits_to_be_activated(both: TestClient, two: list[Path]) -> None:
    older, newer = (path.stem for path in two)
    shown = both.get(PLATE).json()
    assert (shown["version"], shown["activated_by"]) == (older, "jigsight")
    assert shown["versions"] == [
        {"version": older, "active": True, "newer": False},
        {"version": newer, "active": False, "newer": True},
    ]
    answer = both.post(shown["links"]["activate"], json={"version": newer}, headers={"X-Request-ID": "r-7"})
    assert answer.status_code == 200
    assert (answer.json()["version"], answer.json()["activated_by"], answer.json()["loaded"]) == (newer, "", True)
    back = both.post(shown["links"]["rollback"]).json()
    assert back["version"] == older
    assert back["activated_at"] > answer.json()["activated_at"] > shown["activated_at"]
    with running(both).database.reading() as connection:
        rows = connection.execute(select(AUDIT.c.action, AUDIT.c.actor, AUDIT.c.request_id).order_by(AUDIT.c.id)).all()
    assert [row.action for row in rows] == ["activate", "activate", "rollback"]
    assert (rows[1].actor, rows[1].request_id) == ("", "r-7")


def test_which_version_is_active_survives_a_restart(both: TestClient, two: list[Path], settings: Settings) -> None:
    both.post(f"{PLATE}/activate", json={"version": two[1].stem})
    before = both.get(PLATE).json()
    with TestClient(create_app(settings)) as again:
        after = again.get(PLATE).json()
    assert (after["version"], after["activated_at"]) == (before["version"], before["activated_at"])
    assert after["loaded"] is False


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", "activate", {"version": "0123456789ab"}, 404, "unknown-version"),
        ("POST", "activate", {}, 422, "invalid-request"),
        ("POST", "activate", {"version": "x", "force": True}, 422, "invalid-request"),
        ("POST", "rollback", None, 409, "nothing-to-roll-back"),
        ("PUT", "threshold", {"false_reject_rate": 0.01, "value": 2}, 422, "invalid-request"),
        ("PUT", "threshold", {"false_reject_rate": 0}, 422, "invalid-request"),
        ("PUT", "threshold", {"value": -1}, 422, "invalid-request"),
        ("PUT", "threshold", {"values": 1}, 422, "invalid-request"),
    ],
)
def test_what_is_refused(
    both: TestClient, two: list[Path], method: str, path: str, body: Any, status: int, kind: str
) -> None:
    answer = both.request(method, f"{PLATE}/{path}", json=body)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:jigsight:problem:{kind}")
    nowhere = both.request(method, f"/v1/categories/nowhere/{path}", json=body)
    assert nowhere.status_code in (404, 422)
    assert both.get(PLATE).json()["version"] == two[0].stem


def test_a_body_that_is_no_text_is_refused(both: TestClient) -> None:
    answer = both.post(f"{PLATE}/activate", content=b"\xff\xfe{", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"", 422, "Content-Type: application/json"),
        (b"{", 422, "Invalid JSON"),
        (b"[" * 4000, 422, "nested too deeply"),
        (b'{"version": "' + b"x" * 5000 + b'"}', 413, "at most 4,096 bytes"),
    ],
)
def test_bodies_that_are_no_wish(both: TestClient, sent: bytes, status: int, said: str) -> None:
    for method, path in (("POST", "activate"), ("PUT", "threshold")):
        answer = both.request(method, f"{PLATE}/{path}", content=sent)
        assert answer.status_code == status
        assert said in answer.json()["detail"]


def test_a_wish_needs_no_content_type(both: TestClient, two: list[Path]) -> None:
    for number, headers in enumerate(({}, {"Content-Type": "text/plain"})):
        wish = json.dumps({"version": two[1 - number].stem})
        assert both.post(f"{PLATE}/activate", content=wish, headers=headers).json()["version"] == two[1 - number].stem


def test_a_bad_file_is_not_activated(both: TestClient, settings: Settings, two: list[Path], good: Picture) -> None:
    os.truncate(settings.artifacts / "plate" / two[1].name, 100_000)
    answer = both.post(f"{PLATE}/activate", json={"version": two[1].stem})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:jigsight:problem:version-refused")
    assert "truncated" in answer.json()["detail"]
    assert both.post(POST, content=good(1)).json()["version"] == two[0].stem


def test_no_request_fails_while_versions_change(
    both: TestClient, settings: Settings, two: list[Path], good: Picture, bad: Picture, on_a_socket: Socket
) -> None:
    """Cameras post over real connections throughout; each score is the one of the version that the answer names."""
    pictures = [good(1), bad(1)]
    expected: dict[str, list[float]] = {}
    for path in two:
        artifact = load(path)
        tiles = [artifact.detector.preprocess.resize(decode(data)) for data in pictures]
        expected[path.stem] = [detect(artifact, [tile])[0].score for tile in tiles]
    done = threading.Event()

    def camera(address: str) -> list[tuple[int, httpx2.Response]]:
        answers = []
        with httpx2.Client(base_url=address, timeout=60) as client:
            while not done.is_set() or len(answers) < 4:
                number = len(answers) % 2
                answers.append((number, client.post(POST, content=pictures[number])))
        return answers

    with on_a_socket(settings) as address, ThreadPoolExecutor(3) as pool, httpx2.Client(base_url=address) as admin:
        cameras = [pool.submit(camera, address) for _ in range(3)]
        try:
            for _ in range(6):
                assert admin.post(f"{PLATE}/activate", json={"version": two[1].stem}).status_code == 200
                assert admin.post(f"{PLATE}/rollback").status_code == 200
        finally:
            done.set()
        answers = [answer for each in cameras for answer in each.result()]
    assert {answer.status_code for _, answer in answers} == {201}
    assert {answer.json()["version"] for _, answer in answers} == set(expected)
    for number, answer in answers:
        assert answer.json()["score"] == pytest.approx(expected[answer.json()["version"]][number], rel=1e-4)


def test_the_manifest_is_told_in_words(both: TestClient) -> None:
    detail = both.get(PLATE).json()
    assert detail["summary"][0] == "Category plate was trained on 24 pictures of good parts."
    assert detail["manifest"]["dataset"]["images"] == 24
