"""A limit on the bytes of a request's body, applied as they arrive.

Starlette has one of its own, but it answers a declared length that is too large in plain text, past our
exception handler; this one raises `UploadTooLarge` where the body is read.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import UploadTooLarge


class BodyLimit:
    """Pure ASGI: refuses a declared length at once, and a longer body at the byte that is too many."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a `receive` that counts."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        expected = int(declared) if declared.isascii() and declared.isdigit() else 0
        arrived = 0

        async def count() -> Message:
            nonlocal arrived
            if expected > self.limit:
                raise self._too_large(f"{expected:,} bytes are announced")
            message = await receive()
            if message["type"] == "http.request":
                arrived += len(message.get("body", b""))
                if arrived > self.limit:
                    raise self._too_large(f"more than {self.limit:,} bytes arrived")
            return message

        await self.app(scope, count, send)

    def _too_large(self, found: str) -> UploadTooLarge:
        return UploadTooLarge(
            f"The upload is too large: {found}, and at most {self.limit:,} are taken. Send a smaller or more "
            "strongly compressed picture, or raise JIGSIGHT_MAX_BODY_BYTES."
        )
