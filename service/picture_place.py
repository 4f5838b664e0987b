"""What a place for kept pictures can do: a folder (`local_pictures`) and an object store (`remote_pictures`) do it.

A place knows names and bytes. Whether the bytes are those of the name, which pictures there should be and for
how long is not its concern.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Protocol

_DIGEST = re.compile(r"[0-9a-f]{64}")


class PicturePlace(Protocol):
    """Files named by the SHA-256 of their content. Every method raises StoreUnavailable if the place fails."""

    def write(self, digest: str, data: bytes) -> None:
        """Store a picture whole or not at all, durably, whatever was under this name."""

    def read(self, digest: str) -> bytes | None:
        """The bytes under this name; None if there are none."""

    def remove(self, digest: str) -> None:
        """See to it that nothing is under this name."""

    def walk(self) -> Iterator[Mapping[str, int]]:
        """All that is there, as digest -> bytes, a part at a time."""

    def modified(self, digest: str) -> datetime | None:
        """When a picture was last written, in UTC; None if it is not there."""

    def tidy(self) -> None:
        """Remove what interrupted writes have left behind."""


def key(digest: str) -> str:
    """Where a picture lies in its place: two digits are the folder, so that none holds too many."""
    return f"{digest[:2]}/{digest}"


def is_digest(name: str) -> bool:
    """Whether a file is named like a picture; other files in a place are none of ours."""
    return _DIGEST.fullmatch(name) is not None
