"""Which keys are accepted, held in memory: no request waits for the database to be let in.

A thread reads the keys anew every few seconds, so one that was revoked stops within that time. While the database is
gone the keys last read go on being accepted; a line does not stop for it. Once a key was seen, one is always needed.
"""

import hmac
import logging
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from service.access.keys import digest_of
from service.access.principal import ANYBODY, Principal
from service.access.rate_limit import Bucket
from service.errors import KeyExpired, RateLimited, Unauthenticated
from service.storage.keys import Key, Keys

logger = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds
_NOBODY = digest_of("")  # what an unknown key is compared with, so that it costs what a known one does

_REFUSAL = (
    "This needs a valid API key, as `Authorization: Bearer jsk_...` or `X-API-Key: jsk_...`. An administrator of this "
    "service makes one with `jigsight keys create`."
)


@dataclass(frozen=True)
class _Pass:
    key: Key
    principal: Principal
    bucket: Bucket | None


class Guard:
    """Lets requests in by their keys. `local`: only this machine can ask, so that no key is needed before the first.

    `admit` and `charge` are called in one thread, after a first `refresh`, which may run in another later.
    """

    def __init__(self, keys: Keys, *, local: bool, every: float) -> None:
        self._keys = keys
        self._every = every
        self._needed = not local
        self._passes: Mapping[str, _Pass] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)

    @property
    def open(self) -> bool:
        """Whether anybody may ask."""
        return not self._needed

    def start(self) -> None:
        """Read the keys, and again from time to time. Raises StoreUnavailable."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """Read them no more."""
        self._ended.set()
        self._thread.join(_PATIENCE)  # a database that is gone must not keep the service from ending

    def refresh(self) -> None:
        """Read the keys now. Raises StoreUnavailable, and then nothing has changed."""
        before = self._passes
        found = self._keys.all()
        if found and not self._needed:
            logger.info("there are API keys: every request needs one from now on")
        # The keys first: whoever finds that one is needed must be able to show it.
        self._passes = {key.sha256: _pass(key, before.get(key.sha256)) for key in found if key.revoked_at is None}
        self._needed = self._needed or bool(found)

    def admit(self, secret: str | None) -> Principal:
        """Who asks with this key; costs one of its requests. Raises Unauthenticated, KeyExpired or RateLimited."""
        if not self._needed:
            return ANYBODY
        digest = digest_of(secret or "")
        found = self._passes.get(digest)
        same = hmac.compare_digest(digest, _NOBODY if found is None else found.key.sha256)
        if secret is None or found is None or not same:
            raise Unauthenticated(_REFUSAL)
        if found.key.expires_at is not None and found.key.expires_at <= datetime.now(UTC):
            raise KeyExpired(found.key.name, found.key.expires_at)
        if found.bucket is not None and (wait := found.bucket.take()) > 0:
            raise RateLimited(found.key.name, found.bucket.rate, retry_after=math.ceil(wait))
        return found.principal

    def charge(self, principal: Principal, requests: int) -> None:
        """Count so many requests more, for one that did the work of several. What follows waits for them."""
        for each in self._passes.values():
            if each.principal.name == principal.name and each.bucket is not None:
                each.bucket.owe(requests)

    def _run(self) -> None:
        failing = False
        while not self._ended.wait(self._every):
            try:
                self.refresh()
            except Exception as error:  # whatever it is: a guard that ends would never hear of a revoked key
                if not failing:
                    logger.warning("the API keys cannot be read, those known go on being accepted: %s", error)
                failing = True
            else:
                if failing:
                    logger.info("the API keys can be read again")
                failing = False


def _pass(key: Key, before: _Pass | None) -> _Pass:
    if key.rate_limit is None:
        bucket = None
    elif before is not None and before.bucket is not None and before.bucket.rate == key.rate_limit:
        bucket = before.bucket
    else:
        bucket = Bucket(key.rate_limit)
    return _Pass(key, Principal(key.name, key.scopes), bucket)
