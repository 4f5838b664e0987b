"""Activation, rolling back and thresholds over HTTP, while pictures keep coming; files that go and return."""

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from sqlalchemy import select
from starlette.testclient import TestClient

from models.artifact import load
from models.images import decode
from service.app import create_app
from service.engine import detect
from service.settings import Settings
from service.state import Service
from service.storage.tables import AUDIT

POST = "/v1/categories/plate/inspections"
PLATE = "/v1/categories/plate"
Picture = Callable[[int], bytes]


@pytest.fixture(scope="module")
def two(make: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two versions of `plate`, the older first. Not to be changed."""
    folder = tmp_path_factory.mktemp("two")
    made = [make(folder, seed=seed) for seed in (1, 2)]
    for minute, path in enumerate(made):
        os.utime(path, (1_700_000_000 + 60 * minute,) * 2)
    return made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A service whose folder tests fill, and which is looked through only when they say so."""
    (tmp_path / "artifacts" / "plate").mkdir(parents=True)
    return Settings(artifacts=tmp_path / "artifacts", data=tmp_path / "data", device="cpu", scan_seconds=1e6)


@pytest.fixture
def put(settings: Settings) -> Callable[[Path], Path]:
    """Copy an artifact into the service's folder."""

    def copy(path: Path) -> Path:
        target = settings.artifacts / "plate" / path.name
        shutil.copy2(path, target)
        return target

    return copy


@pytest.fixture
def both(put: Callable[[Path], Path], two: list[Path], settings: Settings) -> Iterator[TestClient]:
    """A service in which the older version judges, and the newer one waits."""
    put(two[0])
    with TestClient(create_app(settings)) as client:
        put(two[1])
        running(client).registry.look()
        yield client


def running(client: TestClient) -> Service:
    service: Service = client.app_state["service"]
    return service


@contextmanager
def on_a_socket(settings: Settings) -> Iterator[str]:
    """The address of a server of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


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
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


def test_a_bad_file_is_not_activated(both: TestClient, settings: Settings, two: list[Path], good: Picture) -> None:
    os.truncate(settings.artifacts / "plate" / two[1].name, 100_000)
    answer = both.post(f"{PLATE}/activate", json={"version": two[1].stem})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:jigsight:problem:version-refused")
    assert "truncated" in answer.json()["detail"]
    assert both.post(POST, content=good(1)).json()["version"] == two[0].stem


def test_thresholds_take_effect_with_the_next_part(both: TestClient, bad: Picture, good: Picture) -> None:
    own = both.get(PLATE).json()["threshold"]
    assert (own["rule"], own["since"], own["by"], own["warning"]) == ("train_max", None, None, None)
    assert both.post(POST, content=bad(1)).json()["verdict"] == "fail"
    high = both.put(f"{PLATE}/threshold", json={"value": 1e6}).json()
    assert (high["value"], high["rule"], high["by"], high["pixel"]) == (1e6, "set", "", own["pixel"])
    judged = both.post(POST, content=bad(1)).json()
    assert (judged["verdict"], judged["threshold"], judged["regions"]) == ("pass", 1e6, [])
    low = both.put(f"{PLATE}/threshold", json={"false_reject_rate": 0.2}).json()
    assert (low["rule"], low["false_reject_rate"], low["warning"]) == ("conformal", 0.2, None)
    assert both.get(PLATE).json()["threshold"] == low
    assert both.post(POST, content=good(1)).json()["threshold"] == low["value"] < own["value"]
    reset = both.delete(f"{PLATE}/threshold").json()
    assert (reset["value"], reset["rule"], reset["by"]) == (own["value"], "train_max", "")
    assert both.put(f"{PLATE}/threshold", json={}).json() == reset
    assert both.post(POST, content=bad(1)).json()["threshold"] == own["value"]


def test_a_rate_that_so_few_pictures_cannot_vouch_for_comes_with_a_warning(both: TestClient) -> None:
    given = both.put(f"{PLATE}/threshold", json={"false_reject_rate": 0.001}).json()
    assert given["false_reject_rate"] == pytest.approx(1 / 25)
    assert "24 good pictures cannot vouch for a rate of 0.001" in given["warning"]
    assert both.get(PLATE).json()["threshold"] == given


def test_no_request_fails_while_versions_change(
    both: TestClient, settings: Settings, two: list[Path], good: Picture, bad: Picture
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


def test_a_budget_for_less_than_one_costs_time_and_no_request(
    settings: Settings, make: Callable[..., Path], put: Callable[[Path], Path], two: list[Path], good: Picture
) -> None:
    put(two[0])
    make(settings.artifacts, category="ring")
    tight = settings.model_copy(update={"memory_budget": 1})

    def camera(category: str, client: httpx2.Client) -> list[int]:
        path = f"/v1/categories/{category}/inspections"
        return [client.post(path, content=good(seed)).status_code for seed in range(5)]

    with on_a_socket(tight) as address, httpx2.Client(base_url=address, timeout=60) as client:
        with ThreadPoolExecutor(4) as pool:
            cameras = [pool.submit(camera, category, client) for category in ("plate", "ring") * 2]
        assert {status for each in cameras for status in each.result()} == {201}
        loaded = [each["loaded"] for each in client.get("/v1/categories").json()["categories"]]
        assert sorted(loaded) == [False, True]


def test_a_lost_file_is_noticed_named_and_forgiven(
    both: TestClient, settings: Settings, two: list[Path], put: Callable[[Path], Path], good: Picture
) -> None:
    assert both.post(POST, content=good(1)).status_code == 201
    (settings.artifacts / "plate" / two[0].name).unlink()
    running(both).registry.look()
    shown = both.get(PLATE).json()
    assert shown["loaded"] is True
    assert "has no file" in shown["problem"]
    assert both.post(POST, content=good(1)).json()["version"] == two[0].stem
    assert both.get("/v2/health/ready").status_code == 200
    with TestClient(create_app(settings)) as again:
        answer = again.post(POST, content=good(1))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["type"] == "urn:jigsight:problem:artifact-unavailable"
        assert two[1].stem in answer.json()["detail"]
        assert str(settings.artifacts) not in answer.text
        ready = again.get("/v2/health/ready")
        assert ready.status_code == 503
        assert "category plate" in ready.json()["detail"]
        put(two[0])
        running(again).registry.look()
        assert again.get("/v2/health/ready").status_code == 200
        assert again.post(POST, content=good(1)).json()["version"] == two[0].stem


def test_a_category_that_comes_later_is_served_without_a_restart(
    settings: Settings, put: Callable[[Path], Path], two: list[Path], good: Picture
) -> None:
    quick = settings.model_copy(update={"scan_seconds": 0.01})
    with TestClient(create_app(quick)) as client:
        assert client.post(POST, content=good(1)).status_code == 404
        assert client.get("/v2/health/ready").status_code == 503
        put(two[0])
        for attempt in count():
            assert attempt < 6000, "the new category was not noticed within a minute"
            if client.get("/v2/health/ready").status_code == 200:
                break
            threading.Event().wait(0.01)
        assert client.post(POST, content=good(1)).status_code == 201


def test_preloading(settings: Settings, put: Callable[[Path], Path], two: list[Path]) -> None:
    put(two[0])
    for preload in (False, True):  # the very first start loads what it activates
        with TestClient(create_app(settings)):
            pass
        with TestClient(create_app(settings.model_copy(update={"preload": preload}))) as client:
            assert client.get(PLATE).json()["loaded"] is preload


def test_the_manifest_is_told_in_words(both: TestClient) -> None:
    detail = both.get(PLATE).json()
    assert detail["summary"][0] == "Category plate was trained on 24 pictures of good parts."
    assert detail["manifest"]["dataset"]["images"] == 24
