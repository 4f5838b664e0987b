"""Uvicorn, told when to say where it listens, and how to end: not ready at once, what is in hand finished, exit 0."""

import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from service.connection_limits import limited
from service.settings import Settings
from service.state import Service

logger = logging.getLogger(__name__)

# Cameras that send a part every few seconds keep their connection; a default of 5 would race with their next part.
_KEEP_ALIVE_SECONDS = 75
_GRACE = 5  # seconds that ending may take after `stop_seconds`


class Server(uvicorn.Server):
    """Serves an application on a socket that listens already; `announce` is called once it does."""

    def __init__(self, app: ASGIApp, settings: Settings, *, announce: Callable[[Service], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=limited(settings),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=math.ceil(settings.stop_seconds),
            )
        )
        self._announce = announce
        self._seconds = settings.stop_seconds
        self._delay = settings.stop_delay_seconds
        self._stop_at = math.inf

    def serve_until_told(self, listener: socket.socket) -> None:
        """Serve until SIGTERM or SIGINT, then finish what is in hand and return."""
        for number in (signal.SIGINT, signal.SIGTERM):
            # Before uvicorn takes over, and when it raises the signal again at its end, which need not kill any more.
            signal.signal(number, self._stop_early)
        self.run(sockets=[listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the application, then listen, then say so."""
        await super().startup(sockets)
        self._announce(self._service)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal: not ready, and an end after `stop_delay_seconds`. A second one ends at once."""
        if self.started and self._delay > 0 and self._stop_at == math.inf:
            self._captured_signals.append(sig)
            self._stop_at = time.monotonic() + self._delay
        else:
            super().handle_exit(sig, frame)
        if self.started:
            self._service.phase.stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to end."""
        if time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def _stop_early(self, *_: object) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is in hand, within `stop_seconds`, and end even if a disk or a device hangs."""
        self._end_at_last()
        logger.info("stopping: %d requests are in hand", len(self.server_state.tasks))
        await super().shutdown(sockets)
        logger.info("stopped; threads left: %s", ", ".join(_threads_left()) or "none")

    def _end_at_last(self) -> None:
        """Threads that wait for a disk cannot be ended; the interpreter would wait for them."""
        seconds = math.ceil(self._seconds) + _GRACE

        def end() -> None:
            logger.critical("something hangs: ending without it, %d seconds after it was to stop", seconds)
            os._exit(1)

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()

    @property
    def _service(self) -> Service:
        service: Service = self.lifespan.state["service"]
        return service


def _threads_left() -> list[str]:
    """The threads that the end of the interpreter would wait for. Those of AnyIO idle, and end with the event loop."""
    others = (each for each in threading.enumerate() if each is not threading.main_thread() and not each.daemon)
    return [each.name for each in others if each.name != "AnyIO worker thread"]
