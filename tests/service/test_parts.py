"""A part's disposition over HTTP: any serial can be asked for, and what was never seen does not pass."""

from collections.abc import Callable
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from service.state import Service
from service.storage.inspections import Record

POST = "/v1/categories/plate/inspections"
Picture = Callable[[int], bytes]


@pytest.mark.parametrize("serial", ["A", "LOT 7/0012", "/a//b/", "№ 1?x=1&y#z", "100 %", "..a", "a" * 128])
def test_any_serial_can_be_asked_for(client: TestClient, good: Picture, bad: Picture, serial: str) -> None:
    failed = client.post(POST, content=bad(1), params={"serial": serial, "station": "top"}).json()
    listed = client.get("/v1/inspections", params={"serial": serial}).json()
    assert listed["items"] == [failed]
    for written in (quote(serial, safe="/"), quote(serial, safe="")):
        part = client.get("/v1/parts/" + written).json()
        assert (part["serial"], part["disposition"]) == (serial, "fail")
        assert part["latest"] == part["inspections"] == [failed]
        assert part["links"]["next"] is None
        assert client.get(part["links"]["self"]).json() == part
    client.post(POST, content=good(1), params={"serial": serial, "station": "top"})
    assert client.get("/v1/parts/" + quote(serial)).json()["disposition"] == "pass"
    client.post(POST, content=bad(1), params={"serial": serial})
    assert client.get("/v1/parts/" + quote(serial)).json()["disposition"] == "fail"


@pytest.mark.parametrize(("path", "status"), [("a", 404), ("", 422), ("a" * 129, 422), ("%00", 422), ("a?b=1", 422)])
def test_what_was_never_seen_is_no_pass(client: TestClient, good: Picture, path: str, status: int) -> None:
    client.post(POST, content=good(1), params={"serial": "A"})
    client.post(POST, content=good(1))
    answer = client.get(f"/v1/parts/{path}")
    assert answer.status_code == status
    assert "disposition" not in answer.json()


def test_of_many_inspections_the_newest_are_shown(
    client: TestClient, make_record: Callable[..., Record], add: Callable[..., None]
) -> None:
    service: Service = client.app_state["service"]
    records = [make_record(serial="A b", station=f"{n % 3}") for n in range(203)]
    add(service.database, *records)
    part = client.get("/v1/parts/A b").json()
    assert len(part["latest"]) == 3
    older = client.get(part["links"]["next"]).json()
    assert older["next"] is None
    found = [each["id"] for each in part["inspections"] + older["items"]]
    assert found == [str(record.id) for record in records[::-1]]
