"""Version 7 UUIDs (RFC 9562): their order is the order of their milliseconds."""

import secrets
import uuid
from datetime import datetime


def uuid7(moment: datetime) -> uuid.UUID:
    """A new id for a moment: 48 bits of Unix milliseconds, the version and variant, 74 random bits."""
    milliseconds = int(moment.timestamp() * 1000)
    high = (milliseconds << 16) | (7 << 12) | secrets.randbits(12)
    low = (0b10 << 62) | secrets.randbits(62)
    return uuid.UUID(int=(high << 64) | low)
