"""The time of day, and whether to believe it when something is about to be removed for its age.

A clock that leaps (a dead battery, a mistyped date) makes everything look old. Whoever leaps is doubted for a day
of uninterrupted running, in which a person can notice; then the new time is taken for the right one.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

logger = logging.getLogger(__name__)

DOUBT = timedelta(days=1)  # how far is a leap, and how long it is doubted


def _utc() -> datetime:
    return datetime.now(UTC)


class WallClock:
    """Reads `wall`, and compares its pace with `monotonic` (seconds) from one reading to the next."""

    def __init__(self, *, wall: Callable[[], datetime] = _utc, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._last = wall(), monotonic()
        self._doubted_at: float | None = None

    def now(self) -> datetime:
        """The time in UTC. A leap since the last reading is noticed and logged."""
        before, mark = self._last
        now, elapsed = self._wall(), self._monotonic()
        self._last = now, elapsed
        leap = (now - before) - timedelta(seconds=elapsed - mark)
        if abs(leap) > DOUBT:
            self.doubt(f"The clock has leapt by {leap / timedelta(days=1):+.1f} days.")
        return now

    def doubt(self, reason: str) -> None:
        """Do not trust the time for a day from now on, and say why in the log."""
        self._doubted_at = self._monotonic()
        logger.warning(
            "%s No picture is removed for its age in the next %g hours of running. If the clock is right, "
            "nothing need be done; if not, set it.",
            reason,
            DOUBT / timedelta(hours=1),
        )

    @property
    def trusted(self) -> bool:
        """Whether the last doubt, if there was one, is a day of running ago."""
        return self._doubted_at is None or self._monotonic() - self._doubted_at > DOUBT.total_seconds()
