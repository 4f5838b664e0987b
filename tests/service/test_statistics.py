"""Statistics over HTTP: windows, counts, and drift against the artifact's own calibration."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.state import Service
from service.storage.inspections import Record

NOON = datetime(2030, 1, 2, 12, tzinfo=UTC)
STATISTICS = "/v1/statistics"
WINDOW = {"since": "2030-01-02T00:00:00Z", "until": "2030-01-03T00:00:00Z"}


@pytest.fixture
def filled(client: TestClient, make_record: Callable[..., Record], add: Callable[..., None]) -> TestClient:
    """Two hours' inspections: p-values as promised in the first, rejects in the second."""
    service: Service = client.app_state["service"]
    promised = [make_record(p_value=k / 25, station="a") for k in range(1, 26)]
    rejects = [
        make_record(p_value=1 / 25, score=2.0, verdict="fail", created_at=NOON + timedelta(hours=1)) for _ in range(25)
    ]
    add(service.database, *promised, *rejects)
    return client


def test_counts_and_drift(filled: TestClient, artifact: Any) -> None:
    answer = filled.get(STATISTICS, params=WINDOW).json()
    assert (answer["since"], answer["until"], answer["bucket"]) == (*WINDOW.values(), "hour")
    (found,) = answer["items"]
    assert (found["category"], found["version"]) == ("plate", artifact.version)
    assert (found["inspected"], found["rejected"], found["reject_rate"]) == (50, 25, 0.5)
    assert found["mean_score"] == 1.25
    assert found["drift"] == {
        "distance": pytest.approx(0.5 * 24 / 25),
        "p_value": pytest.approx(0.0007, abs=0.0003),
        "inspected": 50,
        "scores": "higher",
    }
    assert [(each["start"], each["inspected"], each["reject_rate"]) for each in found["buckets"]] == [
        ("2030-01-02T12:00:00Z", 25, 0.0),
        ("2030-01-02T13:00:00Z", 25, 1.0),
    ]


def test_filters(filled: TestClient) -> None:
    (found,) = filled.get(STATISTICS, params={"station": "a", "bucket": "day", **WINDOW}).json()["items"]
    assert (found["inspected"], found["drift"]["distance"]) == (25, pytest.approx(0, abs=1e-12))
    assert found["buckets"][0]["start"] == "2030-01-02T00:00:00Z"
    assert filled.get(STATISTICS, params={"category": "cup", **WINDOW}).json()["items"] == []


def test_the_last_day_is_the_default(client: TestClient, good: Callable[[int], bytes]) -> None:
    client.post("/v1/categories/plate/inspections", content=good(1))
    answer = client.get(STATISTICS).json()
    since, until = (datetime.fromisoformat(answer[name]) for name in ("since", "until"))
    assert until - since == timedelta(hours=24)
    assert abs(datetime.now(UTC) - until) < timedelta(minutes=1)
    (found,) = answer["items"]
    assert found["drift"]["inspected"] == found["inspected"] == 1


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"since": "2030-01-01T00:00:00Z", "until": "2030-02-01T00:00:01Z"}, "at most 31 days"),
        (
            {"bucket": "day", "since": "2030-01-01T00:00:00Z", "until": "2031-02-06T00:00:00Z"},
            "at most 400 days are counted; ask for less.",
        ),
        ({"since": "2999-01-01T00:00:00Z"}, "later than until"),
        ({"since": "2030-01-01T00:00:00"}, "time zone"),
        ({"until": "0001-01-01T00:00:00Z", "since": "0001-01-01T00:00:01Z"}, "later than until"),
        ({"bucket": "minute"}, "query.bucket"),
        ({"serial": "A"}, "no such parameter"),
    ],
)
def test_windows_that_are_refused(client: TestClient, query: dict[str, str], sentence: str) -> None:
    answer = client.get(STATISTICS, params=query)
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]


def test_the_beginning_of_time(client: TestClient) -> None:
    answer = client.get(STATISTICS, params={"until": "0001-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()["items"]) == (200, [])


def test_p_values_of_another_calibration_give_no_drift(
    client: TestClient, make_record: Callable[..., Record], add: Callable[..., None]
) -> None:
    service: Service = client.app_state["service"]
    add(service.database, make_record(p_value=0.123))
    (found,) = client.get(STATISTICS, params=WINDOW).json()["items"]
    assert (found["inspected"], found["drift"]) == (1, None)
