"""A PNG with its pixels stored instead of deflated, so that decoding it takes a third less time.

Of the time of decoding a PNG two thirds are zlib's. ISA-L inflates the same stream in less than half of that; what is
made of the pixels, and of every other chunk, stays Pillow's. Whatever is out of the ordinary, damage above all, is
handed on as it came: refusing is the decoder's.
"""

import struct
import zlib
from typing import Final

from isal import isal_zlib

MOST_BYTES: Final = 2**26
"""Of pixels: they lie in memory two times more while they are decoded."""

_HEADER = struct.Struct(">IIBBxxB")  # width, height, depth, colour type, interlace
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Of an interlaced picture: where each pass begins, and how far apart its columns and rows are.
_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
_PIECE = 2**24  # bytes that are inflated at a time where they are only counted
_BLOCK = 0xFFFF
_STORED = b"\x78\x01"  # how a stream begins: the same window, and that nothing was done to make it small
_USUAL = b"\x78"  # deflate with a window of 32 kB: for smaller ones ISA-L has no limit to how far back a copy reaches


def store_pixels(data: bytes) -> bytes:
    """The file of the same picture that decodes quickly, or `data` itself.

    The checksum of the new chunk is left empty: whoever wants to know looks at the ones in `data`.
    """
    size = 0 if _is_interlaced(data) else _stream_bytes(data)
    begin, end, deflated = _pixel_chunks(data)
    if not 0 < size <= MOST_BYTES or not deflated.startswith(_USUAL):
        return data
    inflater = isal_zlib.decompressobj()
    try:
        pixels = inflater.decompress(deflated, size + 1)
    except isal_zlib.error:  # type: ignore[misc]  # a class, whatever its stub says
        return data
    if len(pixels) != size or not inflater.eof or inflater.unused_data:
        return data
    blocks = _blocks(pixels)
    length = 2 + sum(map(len, blocks)) + 4
    chunk = struct.pack(">I", length), b"IDAT", _STORED, *blocks, deflated[-4:], bytes(4)
    return b"".join((data[:begin], *chunk, data[end:]))


def ends_early(data: bytes) -> bool:
    """Whether the stream of pixels comes to its proper end before the last row: decoders paint the rest black."""
    size, found = _stream_bytes(data), 0
    inflater, left = zlib.decompressobj(), _pixel_chunks(data)[2]
    try:
        while found < size and (piece := inflater.decompress(left, _PIECE)):
            found, left = found + len(piece), inflater.unconsumed_tail
    except zlib.error:
        return False  # which a decoder notices
    return inflater.eof and found < size


def _blocks(pixels: bytes) -> list[bytes | memoryview]:
    """What deflate writes for bytes that it leaves as they are."""
    view, blocks = memoryview(pixels), list[bytes | memoryview]()
    for at in range(0, len(view), _BLOCK):
        block = view[at : at + _BLOCK]
        blocks += (struct.pack("<BHH", at + _BLOCK >= len(view), len(block), len(block) ^ 0xFFFF), block)
    return blocks


def _is_interlaced(data: bytes) -> bool:
    return data[28:29] == b"\1"


def _stream_bytes(data: bytes) -> int:
    """How many bytes the pixels' rows are, each with its filter's; 0 where there is no header."""
    if len(data) < 33 or not data.startswith(b"IHDR", 12):
        return 0
    width, height, depth, colour, _ = _HEADER.unpack_from(data, 16)
    bits, total = depth * _CHANNELS.get(colour, 0), 0
    for x, y, across, down in _PASSES if _is_interlaced(data) else [(0, 0, 1, 1)]:
        columns, rows = -(-(width - x) // across), -(-(height - y) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _pixel_chunks(data: bytes) -> tuple[int, int, bytes]:
    """Where the first run of IDAT chunks begins and ends, and what is in them."""
    at, begin, parts = 8, 0, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data.startswith(b"IDAT", at + 4):
            begin = begin or at
            parts.append(data[at + 8 : at + 8 + length])
        elif begin:
            break
        at += 12 + length
    return begin, at, b"".join(parts)
