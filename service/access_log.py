"""One line in the log, and one count in the metrics, for every answered request."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import FIELDS
from service.problems import PROBLEM
from service.state import service_of

logger = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # a label takes few values
_PROBES = ("/v2/health/", "/metrics")  # asked every few seconds, all day


class AccessLog:
    """Pure ASGI: watches what is answered, and how long it took."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; tell of it when it is done, however it ended."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            _tell(scope, status, time.perf_counter() - begun)


def _tell(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "unmatched")
    metrics = service_of(scope).metrics
    metrics.request(scope["method"] if scope["method"] in _METHODS else "other", route, status)
    if PROBLEM in scope:
        metrics.refused(scope[PROBLEM])
    level = logging.DEBUG if scope["path"].startswith(_PROBES) else logging.INFO
    fields = {
        "method": scope["method"],
        "path": scope["path"],
        "status": status or None,  # none: the client went away before its answer
        "ms": round(seconds * 1000, 1),
        "key": _key_of(scope),
        "client": (scope.get("client") or [None])[0],
    }
    logger.log(level, "answered" if status else "abandoned", extra={FIELDS: fields})


def _key_of(scope: Scope) -> str | None:
    """The name of the key that was accepted; none where none was needed or accepted."""
    principal = scope.get("state", {}).get("principal")
    return principal.name or None if principal else None
