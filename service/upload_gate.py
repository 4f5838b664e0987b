"""The gate that uploads come in through: few at once, and none for long, so that memory is bounded.

A body that is still arriving takes memory as a whole one does, and may come from a client that never ends.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter, WouldBlock, move_on_after

from service.errors import TooManyUploads, UploadTooSlow


class UploadGate:
    """At most `limit` uploads are read at once, of all categories, and each for at most `seconds`."""

    def __init__(self, *, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self._places = CapacityLimiter(limit)

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """A place to read one upload in. Raises TooManyUploads at once, or UploadTooSlow when the time is over."""
        try:
            self._places.acquire_nowait()
        except WouldBlock:
            raise TooManyUploads(
                f"{self.limit} uploads are being read, and no more at once. Send this one again a little later, or "
                "raise JIGSIGHT_UPLOAD_LIMIT."
            ) from None
        try:
            with move_on_after(self.seconds) as time:
                yield
        finally:
            self._places.release()
        if time.cancelled_caught:
            raise UploadTooSlow(
                f"The upload was not complete after {self.seconds:g} seconds. Send it again over a faster connection, "
                "or raise JIGSIGHT_UPLOAD_SECONDS."
            )
