"""A request id for every request: the client's own `X-Request-ID` if it is sane, else a new one."""

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import request_in_hand

HEADER = "X-Request-ID"
_SCOPE_KEY = "jigsight.request_id"
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,64}")  # it goes into the log: no spaces, no line ends


def request_id(scope: Scope) -> str:
    """The id of the request that this scope belongs to."""
    return str(scope.get(_SCOPE_KEY, "none"))


class RequestId:
    """Pure ASGI: puts the id into the scope and into the response's headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on under its id."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wished = Headers(scope=scope).get(HEADER, "")
        chosen = wished if _SANE.fullmatch(wished) else uuid.uuid4().hex
        scope[_SCOPE_KEY] = chosen
        request_in_hand.set(chosen)

        async def stamp(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = chosen
            await send(message)

        await self.app(scope, receive, stamp)
