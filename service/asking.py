"""An HTTP request -> what the inspector wants to know of it."""

import time

from fastapi import Request as HttpRequest

from service.access.principal import Principal
from service.connection import disconnection
from service.inspector import Request
from service.request_id import request_id
from service.state import Service


def inspection_request(
    http: HttpRequest, service: Service, *, timeout_ms: float | None = None, idempotency_key: str | None = None
) -> Request:
    """Who asks, and for how long it is worth answering: `timeout_ms`, but no longer than the service's own limit."""
    sender: Principal = http.state.principal  # whose key `needs("inspect")` has checked
    patience = service.settings.deadline_seconds
    if timeout_ms is not None:
        patience = min(patience, timeout_ms / 1000)
    return Request(
        id=request_id(http.scope),
        sender=sender.name,
        deadline=time.perf_counter() + patience,
        gone=disconnection(http),
        idempotency_key=idempotency_key,
    )
