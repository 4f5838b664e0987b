"""How long a client may take over a request, and how long a head may be: uvicorn has no limit for either.

A connection whose head does not come, or whose body does not end, would be kept forever, and a head without an end
would be kept in memory. A slow upload is the upload gate's to answer (408); a body's time is a little longer here, for
what does not pass the gate, and for bodies that have been refused and go on arriving.
"""

import logging
from asyncio import BaseTransport, TimerHandle
from http import HTTPStatus
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.settings import Settings

logger = logging.getLogger(__name__)

MOST_HEAD_BYTES = 65_536
"""Of a request line with its headers, or of trailers."""
_GRACE_SECONDS = 5.0


class LimitedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with an end to everything that is waited for. Subclasses say after how many seconds."""

    head_seconds: ClassVar[float]
    body_seconds: ClassVar[float]

    _due: TimerHandle | None = None
    _in_head = True  # or before it
    _unparsed = 0  # bytes since anything came of them

    def connection_made(self, transport: BaseTransport) -> None:
        """A first request is due."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows it, too
        self._expect(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Whatever comes begins a request, or goes on with one."""
        if self._due is None and self._answered:
            self._expect(self.head_seconds)  # uvicorn ends its own time between requests with the first byte
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > MOST_HEAD_BYTES:
            self._end(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """The rest of a head is due."""
        if self._due is None:
            self._expect(self.head_seconds)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The body is due."""
        self._in_head, self._unparsed = False, 0
        self._expect(self.body_seconds)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All is there; how long it is worked on is not the client's doing."""
        self._in_head, self._unparsed = True, 0
        self._expect(None)
        super().on_message_complete()

    @property
    def _answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect(self, seconds: float | None) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = None if seconds is None else self.loop.call_later(seconds, self._overdue)

    def _overdue(self) -> None:
        if self.pipeline:  # a request that was sent ahead waits for its turn, and is not read meanwhile
            self._expect(self.body_seconds)
        else:
            self._end(HTTPStatus.REQUEST_TIMEOUT)

    def _end(self, status: HTTPStatus) -> None:
        """Close the connection; say why, if there is a request and nothing of an answer."""
        if self.transport.is_closing():
            return
        if self._in_head and self._answered and self._unparsed:
            head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode())
            logger.info("closed a connection from %s: %s", self.client and self.client[0], status.phrase)
        self.transport.close()


def limited(settings: Settings) -> type[LimitedProtocol]:
    """The protocol with the times of these settings."""

    class Limited(LimitedProtocol):
        head_seconds = settings.head_seconds
        body_seconds = settings.upload_seconds + _GRACE_SECONDS

    return Limited
