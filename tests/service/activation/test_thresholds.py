"""Thresholds over HTTP: they take effect at once, and say what comes out of a wish."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from starlette.testclient import TestClient

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
    assert both.put(f"{PLATE}/threshold", json={}).json() == reset
    assert both.post(POST, content=bad(1)).json()["threshold"] == own["value"]


def test_a_rate_that_so_few_pictures_cannot_vouch_for_comes_with_a_warning(both: TestClient) -> None:
    given = both.put(f"{PLATE}/threshold", json={"false_reject_rate": 0.001}).json()
    assert given["false_reject_rate"] == pytest.approx(1 / 25)
    assert "24 good pictures cannot vouch for a rate of 0.001" in given["warning"]
    assert both.get(PLATE).json()["threshold"] == given
