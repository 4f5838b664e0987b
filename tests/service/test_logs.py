"""Logs: a line an event, with the request that it is about, and nothing that was not sent to be read."""

import json
import logging
import sys
from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient

from service.logs import FIELDS, JsonFormatter, TextFormatter, request_in_hand, start_logging

POST = "/v1/categories/plate/inspections"


def event(message: str, **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "a.b", "levelname": "INFO", "msg": message, "created": 0.5} | extra)


def test_an_event_is_one_line_of_json() -> None:
    request_in_hand.set(None)
    line = JsonFormatter().format(event("two\nlines, ü"))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "info",
        "logger": "a.b",
        "message": "two\nlines, ü",
    }


def test_it_tells_its_request_its_fields_and_what_was_raised() -> None:
    request_in_hand.set("cam-1:77")
    try:
        raise ValueError("why")
    except ValueError:
        record = event("failed", exc_info=sys.exc_info(), **{FIELDS: {"status": 500}})
    told = json.loads(JsonFormatter().format(record))
    assert (told["request_id"], told["status"]) == ("cam-1:77", 500)
    assert "ValueError: why" in told["exception"]
    request_in_hand.set(None)


def test_text_is_for_people() -> None:
    request_in_hand.set(None)
    formatter = TextFormatter("%(levelname)s %(message)s")
    assert formatter.format(event("plain")) == "INFO plain"
    assert (
        formatter.format(event("answered", **{FIELDS: {"status": 201, "client": None}}))
        == "INFO answered  [status=201]"
    )


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = before


@pytest.mark.parametrize(
    ("wished", "kind"), [("json", JsonFormatter), ("text", TextFormatter), ("auto", JsonFormatter)]
)
def test_the_format_is_as_wished(root: logging.Logger, wished: str, kind: type) -> None:
    start_logging(wished)  # type: ignore[arg-type]
    assert [type(handler.formatter) for handler in root.handlers] == [kind]


def test_a_request_is_told_once_with_its_id(
    client: TestClient, good: Callable[[int], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "service.access_log")
    client.post(POST, content=good(1), headers={"X-Request-ID": "cam-1:77"})
    client.get("/v2/health/live")
    told, probe = [record for record in caplog.records if record.name == "service.access_log"]
    fields = getattr(told, FIELDS)
    assert (told.levelno, probe.levelno) == (logging.INFO, logging.DEBUG)
    assert (fields["method"], fields["path"], fields["status"]) == ("POST", POST, 201)
    assert fields["ms"] > 0
