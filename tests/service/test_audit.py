"""The audit trail over HTTP."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.state import Service
from service.storage.audit import Change, note


@pytest.fixture
def ask(client: TestClient) -> Callable[..., dict[str, Any]]:
    service: Service = client.app_state["service"]
    with service.database.transaction() as connection:
        for n in range(5):
            actor = "command line, ann" if n % 2 else "line-3"
            note(connection, Change(actor, "activate", f"category {n}", {"version": str(n)}, request_id=f"r{n}"))

    def get(**query: object) -> dict[str, Any]:
        answer = client.get("/v1/audit", params=query)
        assert answer.status_code == 200
        document: dict[str, Any] = answer.json()
        return document

    return get


def test_a_change_is_told_whole(ask: Callable[..., dict[str, Any]]) -> None:
    newest = ask()["changes"][0]
    assert newest.pop("at").endswith("Z")
    assert newest == {
        "id": 6,  # the first is the service's own: the category was seen for the first time
        "actor": "line-3",
        "action": "activate",
        "subject": "category 4",
        "detail": {"version": "4"},
        "request_id": "r4",
    }


def test_pages_hold_every_change_once(ask: Callable[..., dict[str, Any]]) -> None:
    seen, query = [], {}
    while True:
        page = ask(limit=2, **query)
        seen += [each["id"] for each in page["changes"]]
        if page["next"] is None:
            break
        query = {"cursor": page["next"]}
    assert seen == [6, 5, 4, 3, 2, 1]
    assert ask(limit=6)["next"] is None


def test_by_actor_and_time(ask: Callable[..., dict[str, Any]]) -> None:
    assert [each["id"] for each in ask(actor="command line, ann")["changes"]] == [5, 3]
    newest = ask()["changes"][0]["at"]
    assert 6 in [each["id"] for each in ask(since=newest)["changes"]]
    assert 6 not in [each["id"] for each in ask(until=newest)["changes"]]
    assert ask(since="2999-01-01T00:00:00+01:00") == {"changes": [], "next": None}


@pytest.mark.parametrize(
    "query",
    [
        {"since": "2030-01-01T00:00:00"},
        {"until": "0001-01-01T00:00:00+23:00"},
        {"limit": 0},
        {"limit": 1001},
        {"cursor": 2**31},
        {"actor": "\0"},
        {"acter": "ann"},
        {"since": "2030-01-02T00:00:00Z", "until": "2030-01-01T00:00:00Z"},
    ],
)
def test_nonsense_is_refused(client: TestClient, query: dict[str, Any]) -> None:
    assert client.get("/v1/audit", params=query).status_code == 422
