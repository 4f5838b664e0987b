"""Artifact files that come, go and return under a running service, and how much of them stays loaded."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import delete, update
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from service.state import Service
from service.storage.tables import ARTIFACTS, METADATA

POST = "/v1/categories/plate/inspections"
PLATE = "/v1/categories/plate"
Picture = Callable[[int], bytes]
Socket = Callable[[Settings], AbstractContextManager[str]]


def running(client: TestClient) -> Service:
    service: Service = client.app_state["service"]
    return service


def test_a_budget_for_less_than_one_costs_time_and_no_request(
    settings: Settings,
    make: Callable[..., Path],
    put: Callable[[Path], Path],
    two: list[Path],
    good: Picture,
    on_a_socket: Socket,
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


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_computed_in_is_this_machine_s(
    settings: Settings, put: Callable[[Path], Path], two: list[Path], precision: str
) -> None:
    put(two[0])
    for preload in (False, True):
        started = settings.model_copy(update={"precision": precision, "preload": preload})
        with TestClient(create_app(started)) as client:
            shown = client.get(PLATE).json()
            assert shown["computing_in"] == (precision if shown["loaded"] else None)
            assert shown["manifest"]["precision"] is None  # of the artifact, which does not say


def test_a_database_that_was_emptied_is_begun_anew(both: TestClient, two: list[Path], good: Picture) -> None:
    assert both.post(POST, content=good(1)).status_code == 201
    with running(both).database.transaction() as connection:
        for table in reversed(METADATA.sorted_tables):
            connection.execute(delete(table))
    running(both).registry.look()
    assert both.post(POST, content=good(1)).json()["version"] == two[1].stem  # the newest, as of a new category
    assert both.post(f"{PLATE}/activate", json={"version": two[0].stem}).status_code == 200
    assert both.post(POST, content=good(1)).json()["version"] == two[0].stem
    assert both.get("/v2/health/ready").status_code == 200


def test_a_version_that_a_restored_database_does_not_know_can_be_activated(
    both: TestClient, two: list[Path], good: Picture
) -> None:
    with running(both).database.transaction() as connection:
        connection.execute(delete(ARTIFACTS).where(ARTIFACTS.c.version == two[1].stem))
    assert both.post(f"{PLATE}/activate", json={"version": two[1].stem}).status_code == 200
    assert both.post(POST, content=good(1)).json()["version"] == two[1].stem


def test_an_unreadable_manifest_of_the_past_fails_nothing_else(
    both: TestClient, settings: Settings, two: list[Path], good: Picture
) -> None:
    part = both.post(POST, content=good(1)).json()
    (settings.artifacts / "plate" / two[0].name).unlink()
    with running(both).database.transaction() as connection:
        connection.execute(update(ARTIFACTS).values(manifest='{"format":1}'))
    with TestClient(create_app(settings)) as again:
        (item,) = again.get("/v1/statistics").json()["items"]
        assert (item["inspected"], item["drift"]) == (1, None)
        drawn = {style: again.get(part["links"]["self"] + "/heatmap?style=" + style) for style in ("heat", "raw")}
        assert (drawn["heat"].status_code, drawn["raw"].status_code) == (410, 200)
        assert drawn["heat"].json()["type"] == "urn:jigsight:problem:manifest-unreadable"
        for shown in (again.get(PLATE).json(), *again.get("/v1/categories").json()["categories"]):
            assert (shown["kind"], shown["threshold"]) == (None, None)
            assert "does not read" in shown["problem"]
        assert again.post(POST, content=good(1)).status_code == 503
        assert again.get("/metrics").status_code == 200
        assert again.get("/v2/models/plate").status_code == 200
        assert again.post(f"{PLATE}/activate", json={"version": two[1].stem}).status_code == 200
        assert again.post(POST, content=good(1)).json()["version"] == two[1].stem
        assert again.get(PLATE).json()["kind"] == "texture"


def test_a_misspelled_parameter_of_the_list_is_refused(both: TestClient) -> None:
    assert both.get("/v1/categories", params={"categroy": "plate"}).status_code == 422
