"""API keys as their holders see them: 256 random bits, shown once. Only their SHA-256 is ever stored.

A slow hash is for what people make up; nobody guesses 256 bits, and a camera's every request would pay for it.
"""

import hashlib
import re
import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from service.access.principal import SCOPES, Scope
from service.errors import KeyRefused

PREFIX = "jsk_"  # lets scanners of leaked secrets tell what they have found
_BYTES = 32
# No spaces and no commas: the audit trail's "command line, ..." is nobody's key.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SPAN = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_SLOWEST, _FASTEST = 0.001, 1_000_000.0
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def new_secret() -> str:
    """`jsk_` and 43 characters of base64url."""
    return PREFIX + secrets.token_urlsafe(_BYTES)


def digest_of(secret: str) -> str:
    """SHA-256 in 64 hex digits, of any text."""
    return hashlib.sha256(secret.encode()).hexdigest()


def checked_name(name: str) -> str:
    """The name itself. Raises KeyRefused."""
    if not _NAME.fullmatch(name):
        raise KeyRefused(
            f"A key cannot be named {name!r}. Use up to 64 letters, digits, dots, underscores and hyphens, such as "
            "line-3-camera."
        )
    return name


def checked_scopes(scopes: Collection[str]) -> frozenset[Scope]:
    """The scopes themselves. Raises KeyRefused."""
    found = [scope for wished in scopes for scope in SCOPES if scope == wished]
    if unknown := set(scopes) - set(found):
        raise KeyRefused(f"There is no scope {', '.join(sorted(unknown))}. There are: {', '.join(SCOPES)}.")
    return frozenset(found)


def checked_rate(rate: float) -> float:
    """The rate itself, in requests a second. Raises KeyRefused."""
    if not _SLOWEST <= rate <= _FASTEST:  # and not a number is neither
        raise KeyRefused(
            f"{rate:g} requests a second is no limit. Give {_SLOWEST:g} to {_FASTEST:,.0f}, or none at all."
        )
    return rate


def expiry(text: str, *, now: datetime) -> datetime:
    """The moment that "90d", "12h", "4w", "2030-01-01" (its first moment, UTC) or an ISO 8601 moment means.

    Raises KeyRefused for anything else, and for what is not after `now`.
    """
    moment = _moment(text, now)
    if moment <= now:
        raise KeyRefused(f"A key that expires at {text} would have expired already. Give a later moment.")
    return moment


def _moment(text: str, now: datetime) -> datetime:
    try:
        if span := _SPAN.fullmatch(text):
            return now + int(span[1]) * _UNITS[span[2]]
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise KeyRefused(
            f"{text!r} is no time for a key to expire. Use a span such as 90d, 12h or 4w, or a date such as 2030-01-01."
        ) from None
