"""What the service writes to stderr: a line an event, as JSON or as text, with the id of the request that it is about.

The id is kept in a context variable, so that whatever logs while a request is worked on need not be handed it.
"""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from service.settings import LogFormat

# What an event tells beyond its sentence goes into `extra={"fields": {...}}`.
FIELDS = "fields"
request_in_hand: ContextVar[str | None] = ContextVar("request_in_hand", default=None)


class JsonFormatter(logging.Formatter):
    """An event as one line of JSON; tracebacks in `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request := request_in_hand.get()) is not None:
            event["request_id"] = request
        event |= getattr(record, FIELDS, {})
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """An event as a line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with its fields and its traceback."""
        fields = {"request_id": request_in_hand.get()} | getattr(record, FIELDS, {})
        told = " ".join(f"{name}={_on_one_line(value)}" for name, value in fields.items() if value is not None)
        line = super().format(record)
        return f"{line}  [{told}]" if told else line


def _on_one_line(value: object) -> str:
    """As text; what a client sent must not look like another event."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(value))


def start_logging(wished: LogFormat) -> None:
    """Log to stderr, and nothing twice."""
    as_text = wished == "text" or (wished == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(
        TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s") if as_text else JsonFormatter()
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
