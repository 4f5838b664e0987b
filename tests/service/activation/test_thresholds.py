"""Thresholds over HTTP: they take effect at once, and say what comes out of a wish."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from torch import Tensor

from models.artifact import load
from models.runner import Detections, PlainRunner
from service.settings import Settings

POST = "/v1/categories/plate/inspections"
PLATE = "/v1/categories/plate"
Picture = Callable[[int], bytes]
Socket = Callable[[Settings], AbstractContextManager[str]]


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
    assert both.post(POST, content=bad(1)).json()["threshold"] == own["value"]


def test_a_rate_that_so_few_pictures_cannot_vouch_for_comes_with_a_warning(both: TestClient) -> None:
    given = both.put(f"{PLATE}/threshold", json={"false_reject_rate": 0.001}).json()
    assert given["false_reject_rate"] == pytest.approx(1 / 25)
    assert "24 good pictures cannot vouch for a rate of 0.001" in given["warning"]
    assert both.get(PLATE).json()["threshold"] == given


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"value": None},
        {"value": None, "false_reject_rate": None},
        {"value": True},
        {"value": "3"},
        {"false_reject_rate": "0.1"},
        {"value": 3, "version": 7},
    ],
)
def test_wishes_that_say_nothing_or_something_else_are_refused(both: TestClient, wish: dict[str, Any]) -> None:
    before = both.put(f"{PLATE}/threshold", json={"value": 3}).json()
    answer = both.put(f"{PLATE}/threshold", json=wish)
    assert answer.status_code == 422
    now = both.get(PLATE).json()["threshold"]
    assert (now["value"], now["since"]) == (before["value"], before["since"])


def test_a_wish_for_another_version_is_refused(both: TestClient, two: list[Path]) -> None:
    older, newer = (path.stem for path in two)
    answer = both.put(f"{PLATE}/threshold", json={"value": 3, "version": newer})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:jigsight:problem:other-version-active")
    assert both.get(PLATE).json()["threshold"]["since"] is None
    answer = both.put(f"{PLATE}/threshold", json={"value": 3, "version": older})
    assert (answer.status_code, answer.json()["version"]) == (200, older)


def test_a_value_that_is_hardly_meant_comes_with_a_warning(both: TestClient, two: list[Path]) -> None:
    scores = load(two[0]).calibration.scores
    largest, median = float(scores.max()), float(scores.median())

    def warning(value: float) -> str | None:
        answer = both.put(f"{PLATE}/threshold", json={"value": value})
        assert (answer.status_code, answer.json()["value"]) == (200, value)
        said: str | None = answer.json()["warning"]
        return said

    assert "all of the 24 good pictures" in str(warning(float(scores.min()) / 2))
    assert "23 of the 24 good pictures" in str(warning(float(scores.min())))
    assert warning((largest + median) / 2) is None
    assert warning(largest * 1.5) is None
    assert "100 times the largest score" in str(warning(100 * largest))


def test_a_part_is_judged_at_the_threshold_of_the_version_that_judges_it(
    both: TestClient, two: list[Path], bad: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = (path.stem for path in two)
    both.put(f"{PLATE}/threshold", json={"value": 1e6})
    begun, go_on = threading.Event(), threading.Event()

    run = PlainRunner.__call__

    def held(self: PlainRunner, tiles: Sequence[Tensor]) -> Detections:
        begun.set()
        assert go_on.wait(60)
        return run(self, tiles)

    monkeypatch.setattr(PlainRunner, "__call__", held)
    with ThreadPoolExecutor(1) as pool:
        part = pool.submit(both.post, POST, content=bad(1))
        try:
            assert begun.wait(60)
            assert both.put(f"{PLATE}/threshold", json={"value": 2e6}).status_code == 200
            assert both.post(f"{PLATE}/activate", json={"version": newer}).status_code == 200
            assert both.put(f"{PLATE}/threshold", json={"value": 1.5}).status_code == 200
        finally:
            go_on.set()
        judged = part.result().json()
    assert (judged["version"], judged["threshold"], judged["verdict"]) == (older, 1e6, "pass")
    assert both.post(POST, content=bad(1)).json()["threshold"] == 1.5
