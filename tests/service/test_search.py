"""Lists and exports over HTTP: following a line, refusals, and files that stream and are whole or visibly not."""

import asyncio
import csv
import io
import json
import sqlite3
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from service.state import Service
from service.storage.inspections import Record

NOON = datetime(2030, 1, 2, 12, tzinfo=UTC)
POST = "/v1/categories/plate/inspections"
LIST = "/v1/inspections"
Make = Callable[..., Record]
Add = Callable[..., None]
Picture = Callable[[int], bytes]


def running(client: TestClient) -> Service:
    service: Service = client.app_state["service"]
    return service


def test_a_page_shows_inspections_as_they_were_answered(client: TestClient, good: Picture, bad: Picture) -> None:
    answered = [client.post(POST, content=make(1), params={"serial": "A"}).json() for make in (good, bad)]
    page = client.get(LIST).json()
    assert page["items"] == answered[::-1]
    assert page["next"] is page["links"]["next"] is None
    assert client.get(LIST, params={"order": "asc"}).json()["items"] == answered
    failed = client.get(LIST, params={"serial": "A", "verdict": "fail", "category": "plate"}).json()
    assert failed["items"] == answered[1:]
    assert client.get(LIST, params={"station": "x"}).json()["items"] == []


def test_an_mes_follows_a_line(client: TestClient, make_record: Make, add: Add) -> None:
    database = running(client).database
    records = [make_record(verdict="pf"[n % 2] + ["ass", "ail"][n % 2]) for n in range(7)]
    seen = []
    cursor = None
    for record in [*records, None, None]:
        query = {"order": "asc", "verdict": "fail", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get(LIST, params=query).json()
        assert page["next"] is not None
        seen += page["items"]
        cursor = page["next"]
        if record is not None:
            add(database, record)
    assert [each["id"] for each in seen] == [str(each.id) for each in records if each.verdict == "fail"]


def test_links_lead_on(client: TestClient, make_record: Make, add: Add) -> None:
    database = running(client).database
    since = "2030-01-02T12:00:00+02:00"
    records = [make_record(serial="№ 1/?&", created_at=NOON + timedelta(seconds=n)) for n in range(5)]
    add(database, *records)
    first = client.get(LIST, params={"limit": 2, "serial": "№ 1/?&", "since": since}).json()
    add(database, make_record(), late := make_record(serial="№ 1/?&"))
    second = client.get(first["links"]["next"]).json()
    third = client.get(second["links"]["next"]).json()
    found = [each["id"] for page in (first, second, third) for each in page["items"]]
    assert found == [str(record.id) for record in records[::-1]]
    assert third["links"]["next"] is None
    assert client.get(second["links"]["self"]).json() == second
    following = client.get(first["links"]["follow"]).json()
    assert [each["id"] for each in following["items"]] == [str(late.id)]
    assert client.get(following["links"]["next"]).json()["items"] == []


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"seral": "A"}, "query.seral: there is no such parameter here; there are"),
        ({"serial": ["A", "B"]}, "given 2 times"),
        ({"since": "2030-01-01T00:00:00"}, "no time zone; write 2030-01-01T00:00:00Z"),
        ({"since": "2030-01-01"}, "no time zone; write 2030-01-01T00:00:00Z"),
        ({"serial": "a\n"}, "no control characters or line ends"),
        ({"since": "2030-01-01T00:00:00 02:00"}, "%2B stands for +"),
        ({"since": "1900000000"}, "is no moment"),
        ({"until": "0001-01-01T00:00:00+14:00"}, "is no moment"),
        ({"since": "2030-01-02T00:00:00Z", "until": "2030-01-01T00:00:00Z"}, "later than until"),
        ({"limit": "0"}, "query.limit"),
        ({"limit": "501"}, "query.limit"),
        ({"order": "up"}, "query.order"),
        ({"category": "a b"}, "query.category"),
        ({"version": "x"}, "query.version"),
        ({"serial": "\0"}, "query.serial"),
        ({"cursor": "nonsense"}, "'nonsense' is no cursor"),
    ],
)
def test_what_is_wrong_with_a_query_is_said(client: TestClient, query: dict[str, Any], sentence: str) -> None:
    for path in (LIST, f"{LIST}.csv", f"{LIST}.ndjson"):
        answer = client.get(path, params=query)
        assert answer.status_code == 422
        assert path != LIST or sentence in answer.json()["detail"]


def test_a_cursor_belongs_to_its_filters(client: TestClient) -> None:
    cursor = client.get(LIST, params={"order": "asc", "verdict": "fail"}).json()["next"]
    assert client.get(LIST, params={"order": "asc", "verdict": "fail", "cursor": cursor}).status_code == 200
    for other in ({"order": "asc"}, {"verdict": "fail"}):
        answer = client.get(LIST, params={"cursor": cursor, **other})
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:jigsight:problem:bad-cursor")


def test_a_misspelled_serial_is_not_lost(client: TestClient, good: Picture) -> None:
    answer = client.post(POST, content=good(1), params={"seral": "A"})
    assert answer.status_code == 422
    assert "seral" in answer.json()["detail"]
    assert client.get(LIST).json()["items"] == []


def test_exports_of_nothing_are_whole_files(client: TestClient) -> None:
    table = client.get(f"{LIST}.csv")
    assert table.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert table.headers["content-disposition"].startswith('attachment; filename="inspections-')
    assert table.headers["content-disposition"].endswith('Z.csv"')
    assert len(table.text.splitlines()) == 1
    lines = client.get(f"{LIST}.ndjson")
    assert (lines.status_code, lines.text) == (200, "")
    assert lines.headers["content-type"] == "application/x-ndjson"


def fill(client: TestClient, record: Record, count: int) -> None:
    """The same inspection many times, straight into the tables."""
    database = running(client).database
    with database.transaction() as connection:
        connection.execute(
            text(
                "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
                "INSERT INTO inspections (id, category, version, serial, verdict, score, threshold, p_value, regions, "
                "width, height, image_sha256, image_media_type, image_kept, created_at, durations, request_id, "
                "submitted_by) SELECT printf('%032x', i), category, version, 'S' || i, verdict, score, threshold, "
                "p_value, regions, width, height, image_sha256, image_media_type, image_kept, created_at, durations, "
                "request_id, submitted_by FROM inspections, n WHERE number = 1"
            ),
            {"count": count},
        )


COUNT = 20_000


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_long_exports_are_complete(client: TestClient, make_record: Make, add: Add, order: str) -> None:
    add(running(client).database, record := make_record(serial="S1"))
    fill(client, record, COUNT)
    serials = [f"S{n}" for n in range(1, COUNT + 1)][:: 1 if order == "asc" else -1]
    table = client.get(f"{LIST}.csv", params={"order": order})
    assert [row["serial"] for row in csv.DictReader(io.StringIO(table.text, newline=""))] == serials
    lines = client.get(f"{LIST}.ndjson", params={"order": order, "category": "plate"})
    assert [json.loads(line)["serial"] for line in lines.text.splitlines()] == serials


def stream(client: TestClient, path: str, received: Callable[[dict[str, Any]], None]) -> None:
    """Ask the application itself, and hand over each message as it comes."""

    async def send(message: Any) -> None:
        received(message)

    async def receive() -> Any:
        await asyncio.Event().wait()  # the client neither sends more nor goes away

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 50_000),
        "state": client.app_state,
    }
    asyncio.run(client.app(scope, receive, send))


def test_the_memory_of_an_export_is_flat(client: TestClient, make_record: Make, add: Add) -> None:
    region = {"box": [100, 200, 30, 40], "area": 1200, "peak": 1.5}
    add(running(client).database, record := make_record(serial="S1", regions=[region] * 10))
    fill(client, record, COUNT)
    held, sent = [], []

    def received(message: dict[str, Any]) -> None:
        sent.append(len(message.get("body", b"")))
        held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        stream(client, f"{LIST}.csv", received)
    finally:
        tracemalloc.stop()
    assert sum(sent) > 12_000_000
    assert max(sent) < 1_000_000
    assert max(held) - held[2] < 1_500_000


def test_an_export_that_fails_is_never_a_well_formed_file(
    client: TestClient, settings: Settings, make_record: Make, add: Add
) -> None:
    add(running(client).database, record := make_record(serial="S1"))
    fill(client, record, 5000)
    messages: list[dict[str, Any]] = []

    def break_it(message: dict[str, Any]) -> None:
        messages.append(message)
        if len(messages) == 2:
            with sqlite3.connect(settings.data / "jigsight.sqlite") as connection:
                connection.execute("ALTER TABLE inspections RENAME TO elsewhere")

    with pytest.raises(Exception, match="response already started"):  # so that the server drops the connection
        stream(client, f"{LIST}.csv", break_it)
    assert messages[0]["status"] == 200
    assert all(message["more_body"] for message in messages[1:])


def test_without_its_database_there_is_no_answer(client: TestClient, settings: Settings) -> None:
    with sqlite3.connect(settings.data / "jigsight.sqlite") as connection:
        connection.execute("ALTER TABLE inspections RENAME TO elsewhere")
    for path in (LIST, f"{LIST}.csv", f"{LIST}.ndjson", "/v1/parts/A", "/v1/statistics"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "disposition" not in answer.text


def test_lists_and_files_on_both_databases(database_url: str, settings: Settings, make_record: Make, add: Add) -> None:
    with TestClient(create_app(settings.model_copy(update={"database_url": database_url}))) as client:
        add(running(client).database, *(make_record(serial=f"№ {n}") for n in range(3)))
        wanted = ["№ 2", "№ 1", "№ 0"]
        assert [each["serial"] for each in client.get(LIST).json()["items"]] == wanted
        ever = {"since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59.999999Z"}
        lines = client.get(f"{LIST}.ndjson", params=ever).text.splitlines()
        assert [json.loads(line)["serial"] for line in lines] == wanted
        assert client.get("/v1/parts/№ 1").json()["disposition"] == "pass"
        assert client.get("/v1/statistics", params={"until": "2030-01-02T13:00:00Z"}).json()["items"]
