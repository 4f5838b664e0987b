"""How often a key may ask: a token bucket. A second's worth of requests may come at once, but at least one."""

import time
from collections.abc import Callable


class Bucket:
    """Fills at `rate` tokens a second. One thread at a time; `clock` tells seconds and never goes back."""

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._size = max(1.0, rate)
        self._tokens = self._size
        self._filled_at = clock()

    def take(self) -> float:
        """Take a token, or none: seconds until there is one, 0 if one was taken."""
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self.rate
        self._tokens -= 1.0
        return 0.0

    def owe(self, count: float) -> None:
        """Take so many tokens, even if there are fewer: later ones make up for them first."""
        self._tokens -= count
