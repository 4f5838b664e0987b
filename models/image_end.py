"""What lies behind the end of a picture: nothing and padding are fine, a second picture is not.

Decoders stop at the end of the first. Two files in one body (a shell's `cat`, a buffer that was not emptied) would be
judged by the first, and the part on the second would slip. Where a TIFF ends cannot be told: its parts lie anywhere.
"""

import re
import struct

from models.errors import UnsupportedImage
from models.image_signature import signed_format

_PADDING = re.compile(rb"[\x00\t\n\r ]*")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes that a bitmap's second header may have
_BMP = struct.Struct("<I4xIIii2xHI")  # from byte 2: file, pixels' start, header, width, height, bits, compression
_UNCOMPRESSED = (0, 3)  # as BGR, or by masks


def refuse_second_picture(data: bytes, name: str, *, end: int) -> None:
    """Raise UnsupportedImage if behind the picture of format `name`, which ends before byte `end`, begins another."""
    padding = _PADDING.match(data, end)
    at = padding.end() if padding else end
    second = signed_format(data, at)
    if second is None or (second == "BMP" and not _plausible_bitmap(data, at)):
        return
    raise UnsupportedImage(
        f"There are several pictures in one body: behind the {name}, which ends after {end} of {len(data)} bytes, "
        f"begins a {second}. A verdict on the first would let the others slip; send each by itself."
    )


def webp_end(data: bytes) -> int:
    """Where a WebP says that it ends; an odd length is filled up with a byte."""
    size = int.from_bytes(data[4:8], "little")
    return 8 + size + size % 2


def bmp_end(data: bytes) -> int:
    """Where a bitmap's pixels end, or where it says that its file does; len(data) if neither can be told.

    The pixels go first: programs write any number, 0 among them, for the size of the file.
    """
    try:
        size, start, header, width, height, bits, compression = _BMP.unpack_from(data, 2)
    except struct.error:
        return len(data)
    if header >= 40 and compression in _UNCOMPRESSED:
        return int(start + (abs(width) * bits + 31) // 32 * 4 * abs(height))
    return int(size) if size > start else len(data)


def _plausible_bitmap(data: bytes, at: int) -> bool:
    """Whether more than two letters speak for a bitmap."""
    return int.from_bytes(data[at + 14 : at + 18], "little") in _BMP_HEADERS
