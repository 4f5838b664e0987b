"""An HTTP request -> what the inspector wants to know of it."""

import math
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
    """Who asks, and for how long it is worth answering: `timeout_ms` from now on, if the sender says so."""
    sender: Principal = http.state.principal  # whose key `needs("inspect")` has checked
    return Request(
        id=request_id(http.scope),
        sender=sender.name,
        deadline=math.inf if timeout_ms is None else time.perf_counter() + timeout_ms / 1000,
        patience=service.settings.deadline_seconds,
        gone=disconnection(http),
        idempotency_key=idempotency_key,
    )
