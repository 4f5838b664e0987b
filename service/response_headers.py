"""Headers of answers, as the OpenAPI document describes them."""

from http import HTTPStatus
from typing import Any

_SECONDS = {"type": "string", "pattern": "^[0-9]+$"}
RETRY_AFTER = {"Retry-After": {"description": "seconds, where waiting that long may help", "schema": _SECONDS}}
OF_AN_INSPECTION = {
    "Location": {"description": "where the inspection is found", "schema": {"type": "string"}},
    "Idempotency-Replayed": {
        "description": "`true` if an earlier request with the same Idempotency-Key had been answered with it",
        "schema": {"type": "string", "enum": ["true"]},
    },
}
_MAY_BE_OVER_SOON = (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


def headers_with(status: HTTPStatus) -> dict[str, Any]:
    """What a response of this status says of its headers."""
    return {"headers": RETRY_AFTER} if status in _MAY_BE_OVER_SOON else {}
