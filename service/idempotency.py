"""Requests that are sent again: one key, one inspection (IETF draft "The Idempotency-Key HTTP Header Field").

A key belongs to its sender. What was answered is found in the database; what is being worked on, here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hmac import compare_digest
from typing import Annotated

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import StringConstraints

from service.errors import KeyReused, RequestInFlight
from service.pictures import digest_of
from service.storage.inspections import Record
from service.uploads import Upload

IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]


async def _once(request: Request) -> None:
    count = len(request.headers.getlist("idempotency-key"))
    if count > 1:
        what = f"it is given {count} times; give it once"
        raise RequestValidationError([{"loc": ("header", "Idempotency-Key"), "msg": what}])


ONE_KEY = Depends(_once)
"""For routes that take a key: of several, any might be the one that the sender means."""


class InFlight:
    """The keys of the requests in hand. Used from the event loop only."""

    def __init__(self) -> None:
        self._keys: set[tuple[str, str]] = set()

    @contextmanager
    def hold(self, sender: str, key: str | None) -> Iterator[None]:
        """Hold a key while its request is worked on, if it has one. Raises RequestInFlight."""
        if key is None:
            yield
            return
        if (sender, key) in self._keys:
            raise RequestInFlight(
                f"A request with the Idempotency-Key {key!r} is being worked on. Send it again a little later for its "
                "answer."
            )
        self._keys.add((sender, key))
        try:
            yield
        finally:
            self._keys.discard((sender, key))


def check_same(first: Record, category: str, upload: Upload) -> None:
    """Raise KeyReused if the inspection that a key was answered with is not one of this upload."""
    told = first.category, first.serial, first.station
    same_picture = compare_digest(first.image_sha256, digest_of(upload.data))
    if not same_picture or told != (category, upload.serial, upload.station):
        raise KeyReused(
            f"The Idempotency-Key {first.idempotency_key!r} belongs to inspection {first.id}, of another picture, "
            "category, serial or station. A new part needs a new key."
        )
