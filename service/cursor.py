"""Where a list goes on, as text: 24 characters that clients hand back and do not read.

The bytes behind them: the layout's version, the order, a fingerprint of the order and filters, and the number to go
on behind. A cursor of other filters would skip rows silently, so it is refused.
"""

import base64
import binascii
import hashlib
import json
import struct
from dataclasses import asdict
from datetime import UTC, datetime

from service.errors import BadCursor
from service.storage.queries import Filters, Order

_VERSION = 1
_LAYOUT = struct.Struct(">Bc8sq")
_ORDERS: dict[Order, bytes] = {"asc": b"a", "desc": b"d"}


def write(number: int, filters: Filters, *, order: Order) -> str:
    """The cursor that goes on behind a number."""
    packed = _LAYOUT.pack(_VERSION, _ORDERS[order], _fingerprint(filters, order), number)
    return base64.urlsafe_b64encode(packed).decode()


def read(cursor: str, filters: Filters, *, order: Order) -> int:
    """The number that a cursor goes on behind. Raises BadCursor if it was made of other filters or order."""
    try:
        version, letter, fingerprint, number = _LAYOUT.unpack(base64.b64decode(cursor, b"-_", validate=True))
    except (ValueError, binascii.Error, struct.error):
        raise _unknown(cursor) from None
    if version != _VERSION or letter not in _ORDERS.values() or number < 0:
        raise _unknown(cursor)
    if letter != _ORDERS[order]:
        raise BadCursor(f"This cursor does not go on with order={order}. Send it with the order that it was given for.")
    if fingerprint != _fingerprint(filters, order):
        raise BadCursor(
            "This cursor was given for other filters. Send it with exactly those, or begin without a cursor."
        )
    return int(number)


def _unknown(cursor: str) -> BadCursor:
    return BadCursor(f"{cursor!r} is no cursor. Send the `next` of an earlier answer as it was, or none to begin.")


def _fingerprint(filters: Filters, order: Order) -> bytes:
    given = {name: _plain(value) for name, value in asdict(filters).items() if value is not None}
    return hashlib.sha256(json.dumps([order, given], sort_keys=True).encode()).digest()[:8]


def _plain(value: str | datetime) -> str:
    return value if isinstance(value, str) else value.astimezone(UTC).isoformat()
