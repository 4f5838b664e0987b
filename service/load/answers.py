"""What one request came to: an accepted part with its verdict, or a refusal, of whatever kind.

Accepted is only a 2xx that carries a verdict. All else is a refusal: other statuses with their problem type, answers
that make no sense, connections that failed and answers that did not come in time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

_LONGEST_DETAIL = 300  # characters


@dataclass(frozen=True, slots=True)
class Accepted:
    """A part that was judged."""

    verdict: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A part that was not judged. `kind` is the problem's type, or what happened to the connection (status None)."""

    status: int | None
    kind: str
    detail: str
    retry_after: str | None = None


def read_answer(status: int, headers: Mapping[str, str], body: bytes) -> Accepted | Refusal:
    """An answer that arrived whole."""
    document = _document(body)
    if 200 <= status < 300:
        verdict = document.get("verdict")
        if verdict in ("pass", "fail"):
            return Accepted(verdict)
        return Refusal(status, "no-verdict", _brief(body.decode(errors="replace")))
    detail = str(document.get("detail") or body.decode(errors="replace"))
    kind = str(document.get("type") or headers.get("content-type") or "no-problem-document")
    return Refusal(status, kind, _brief(detail), headers.get("retry-after"))


def read_failure(error: aiohttp.ClientError | TimeoutError, *, timeout: float) -> Refusal:
    """A request without an answer; `timeout` is the seconds it was given."""
    match error:
        case TimeoutError():
            return Refusal(None, "timeout", f"There was no answer within {timeout:g} seconds of sending.")
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            kind = "connection-refused"
        case aiohttp.ClientConnectorError():
            kind = "cannot-connect"
        case aiohttp.ServerDisconnectedError():
            kind = "disconnected"
        case aiohttp.ClientPayloadError():
            kind = "answer-cut-off"
        case ConnectionResetError() | BrokenPipeError() | aiohttp.ClientOSError():
            kind = "connection-reset"
        case _:
            kind = type(error).__name__
    return Refusal(None, kind, _brief(str(error) or kind))


def no_connection(*, timeout: float) -> Refusal:
    """A request that was never sent: all connections were taken, or a new one was not accepted, for so many seconds."""
    return Refusal(None, "no-connection", f"No connection was free within {timeout:g} seconds: it was never sent.")


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_DETAIL else line[: _LONGEST_DETAIL - 1] + "…"
