"""Which kept pictures go, and when: those older than so many days, and the oldest beyond so many bytes.

A thread of its own looks at the rows now and then. How a removal keeps out of the way of an upload of the same
picture is told in `storage.pictures`. Once a day the place is walked through: pictures without a row (from before there
were rows, or of a process that died before it committed) get one and so are removed in their turn. Inspections and
maps are never removed.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from service.errors import StoreUnavailable
from service.picture_place import PicturePlace
from service.storage.pictures import LEASE, KeptPicture, PictureIndex
from service.wall_clock import WallClock

logger = logging.getLogger(__name__)

_BATCH = 200  # pictures a transaction: short enough for the inspections that wait behind it
_BREATH = 0.02  # seconds between two batches, for whoever waits
_REMOVING_THREADS = 8  # an object store answers slowly, but many at once
_FAILURES = 8  # after so many in a batch it is not one picture that cannot be removed, but the place that fails
_WALKS = 24 * 3600.0  # seconds between two walks through the place
# At the start there is nothing to tell a leap of the clock by but the last upload. Holidays are shorter than this.
_STANDSTILL = timedelta(days=7)


@dataclass(frozen=True)
class Limits:
    """What is kept: pictures of the last `days`, and at most `bytes`; None is no limit."""

    days: float | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Stats:
    """What is kept, as of the last run, and what this process has removed since it started."""

    pictures: int = 0
    bytes: int = 0
    removed: int = 0
    removed_bytes: int = 0


class Retention:
    """Runs every `seconds` between `start` and `stop`, the first time at once."""

    def __init__(
        self,
        place: PicturePlace,
        index: PictureIndex,
        *,
        limits: Limits,
        seconds: float,
        clock: WallClock | None = None,
    ) -> None:
        self._place = place
        self._index = index
        self._limits = limits
        self._seconds = seconds
        self._clock = clock or WallClock()
        self._stats = Stats()
        self._first = True
        self._walked_at: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="retention", daemon=True)

    @property
    def stats(self) -> Stats:
        """As of the last run."""
        return self._stats

    def start(self) -> None:
        """Begin to run in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the pictures in hand and end; a store that hangs is not waited for."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def run(self) -> None:
        """Remove what is beyond the limits, and walk through the place if it is time.

        Raises StoreUnavailable for the first of what failed, once the rest is done.
        """
        now = self._clock.now()
        if self._first:
            self._compare_with_last_upload(now)
            self._first = False
        failure: StoreUnavailable | None = None
        # The walk is last: what it finds is removed in the next run, and whoever is just uploading that is done then.
        for step in (self._finish, self._remove_old, self._remove_excess, self._walk):
            try:
                step()
            except StoreUnavailable as error:
                failure = failure or error
        totals = self._index.totals()
        self._stats = replace(self._stats, pictures=totals.pictures, bytes=totals.bytes)
        if failure is not None:
            raise failure

    def _repeat(self) -> None:
        while not self._stopping.is_set():
            try:
                self.run()
            except StoreUnavailable as error:
                reason = f"{error} {error.__cause__!r}" if error.__cause__ else error
                logger.warning("Retention did not come to its end, and goes on the next time: %s", reason)
            except Exception:  # this thread must outlive whatever one run meets
                logger.exception("Retention did not come to its end, and goes on the next time.")
            self._stopping.wait(self._seconds)

    def _compare_with_last_upload(self, now: datetime) -> None:
        newest = self._index.totals().newest
        if self._limits.days is None or newest is None:
            return
        if now - newest > max(_STANDSTILL, timedelta(days=self._limits.days)):
            self._clock.doubt(f"It is {now:%Y-%m-%d}, and the newest kept picture is of {newest:%Y-%m-%d}.")

    def _finish(self) -> None:
        self._empty(lambda: self._index.abandoned(_BATCH, now=self._clock.now()))

    def _remove_old(self) -> None:
        if self._limits.days is None:
            return
        age = timedelta(days=self._limits.days)

        def too_old() -> list[KeptPicture]:
            now = self._clock.now()  # for every batch anew: a run may take hours, and the clock may leap meanwhile
            return self._index.oldest(_BATCH, now=now, before=now - age) if self._clock.trusted else []

        self._empty(too_old)

    def _remove_excess(self) -> None:
        if self._limits.bytes is None:
            return
        excess = self._index.totals().bytes - self._limits.bytes

        def beyond() -> list[KeptPicture]:
            nonlocal excess
            chosen = []
            for picture in self._index.oldest(_BATCH, now=self._clock.now()) if excess > 0 else []:
                if excess > 0:
                    chosen.append(picture)
                    excess -= picture.bytes
            return chosen

        self._empty(beyond)

    def _empty(self, batch: Callable[[], Sequence[KeptPicture]]) -> None:
        """Remove batch after batch until one is empty."""
        while not self._stopping.is_set() and (pictures := batch()):
            self._remove(self._index.claim(pictures, now=self._clock.now()))
            self._stopping.wait(_BREATH)

    def _remove(self, claimed: Sequence[KeptPicture]) -> None:
        """Remove claimed pictures, and then the rows of those that are gone for certain."""
        begun = time.monotonic()
        gone: list[KeptPicture] = []
        failures: list[StoreUnavailable] = []

        def remove(picture: KeptPicture) -> None:
            late = time.monotonic() - begun > LEASE.total_seconds() / 3
            if late or len(failures) >= _FAILURES or self._stopping.is_set():
                return  # its claim runs out, and a later run takes it over
            try:
                self._place.remove(picture.sha256)
            except StoreUnavailable as error:
                failures.append(error)
            else:
                gone.append(picture)

        try:
            with ThreadPoolExecutor(_REMOVING_THREADS) as threads:
                list(threads.map(remove, claimed))
        finally:
            self._index.forget(gone)
            self._stats = replace(
                self._stats,
                removed=self._stats.removed + len(gone),
                removed_bytes=self._stats.removed_bytes + sum(picture.bytes for picture in gone),
            )
        if failures:
            raise failures[0]

    def _walk(self) -> None:
        """Once a day, give rows to pictures that have none; each counts as uploaded when its file was written."""
        if self._walked_at is not None and time.monotonic() - self._walked_at < _WALKS:
            return
        self._place.tidy()
        adopted = 0
        for part in self._place.walk():
            if self._stopping.is_set():
                return
            names = iter(part)
            while chunk := list(islice(names, _BATCH)):
                times = {digest: self._place.modified(digest) for digest in self._index.unknown(chunk)}
                found = [KeptPicture(each, part[each], at) for each, at in times.items() if at is not None]
                self._index.adopt(found)
                adopted += len(found)
        self._walked_at = time.monotonic()
        if adopted:
            logger.info("%d kept pictures were not listed in the database, and are now.", adopted)
