"""What a picture file is made of, counted before any decoder sees it; no pixel is decoded here.

A few bytes can cost a decoder gigabytes or minutes without claiming many pixels: by millions of tiny pieces, by
scans over the whole picture again and again, by tiles larger than the picture. What no camera and no program writes
is refused by its number. Whether a file is otherwise sound is the decoder's to say: what cannot be followed here is
left to it.
"""

import re
import struct
from collections.abc import Iterator

from models.errors import CorruptImage, ImageTooLarge, UnsupportedImage
from models.image_end import bmp_end, refuse_second_picture, webp_end

MOST_SCANS = 64
"""Of a JPEG: encoders write about ten. A scan takes as long as the whole picture, however few its bytes are."""
MOST_PIECES = 2**16
"""Strips or tiles of a TIFF, and entries of its directory."""
MOST_EXIF = 2**20
"""Bytes of EXIF; a JPEG's segment of it has 65,533 at most, and a file has one."""

_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # restarts belong to the data of a scan
_ALONE = b"\x01\xd8"
_SCAN, _END, _EXIF, _LIST = 0xDA, 0xD9, 0xE1, 0xE2
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # tables, and one that means nothing
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_STRIPS, _TILE_WIDTH, _TILE_LENGTH, _TILES = 273, 322, 323, 324
_NUMBERS = {3: "H", 4: "I", 16: "Q"}  # types of a TIFF's entries


def check_structure(data: bytes, name: str, *, max_pixels: int) -> None:
    """Refuse a file that would cost far more than its pixels, or that another picture follows in the same bytes.

    `name` is its format, of `models.images.FORMATS`. Raises UnsupportedImage, ImageTooLarge (a TIFF's tiles) or
    CorruptImage (a JPEG without an end).
    """
    if name == "JPEG":
        _check_jpeg(data)
    elif name == "PNG":
        _check_png(data)
    elif name == "TIFF":
        _check_tiff(data, max_pixels)
    elif name == "BMP":
        refuse_second_picture(data, name, end=bmp_end(data))
    elif name == "WEBP":
        refuse_second_picture(data, name, end=webp_end(data))


def check_exif(block: bytes) -> None:
    """Refuse a block of EXIF that would take long to read. Raises UnsupportedImage."""
    if len(block) > MOST_EXIF:
        raise UnsupportedImage(f"The picture has {len(block)} bytes of EXIF. Save it without.")


def is_lossless_jpeg(data: bytes) -> bool:
    """Whether a JPEG keeps its pixels as such, and not as waves, of which some can be left out."""
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker in _FRAMES:
            return marker in _LOSSLESS
        if marker not in _ALONE:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return False


def _check_jpeg(data: bytes) -> None:
    """Follow the segments, and the scans between them, to the end marker.

    Without one the file was cut off. Thumbnails lie within segments, so theirs cannot answer for it. Phones append
    further pictures (previews, depth, a gain map) and list them in a segment: those are left alone.
    """
    at, segments, scans, exif, listed = 2, 0, 0, 0, False
    while found := _MARKER.search(data, at):
        marker = found[1][0]
        if scans == 0 and found.end() - at > MOST_PIECES:
            raise UnsupportedImage(f"The JPEG has {found.end() - at - 2} bytes of filling in its header. Save it anew.")
        if marker == _END:
            if not listed:
                refuse_second_picture(data, "JPEG", end=found.end())
            return
        at = found.end()
        if marker not in _ALONE:
            length = int.from_bytes(data[at : at + 2], "big")
            listed = listed or (marker == _LIST and data.startswith(b"MPF\0", at + 2))
            at += max(2, length)
            exif += length * (marker == _EXIF)
            scans += marker == _SCAN
        segments += 1
        _check_count("JPEG", "segments", segments, size=len(data))
        if scans > MOST_SCANS:
            raise UnsupportedImage(f"The JPEG has more than {MOST_SCANS} scans. Save it anew, not progressively.")
        if exif > MOST_EXIF:
            raise UnsupportedImage(f"The JPEG has more than {MOST_EXIF} bytes of EXIF. Save it without.")
    raise CorruptImage("The JPEG has no end marker: it was cut off. Send it again.")


def _check_png(data: bytes) -> None:
    at, chunks = 8, 0
    while at < len(data):
        last = data.startswith(b"IEND", at + 4)
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        chunks += 1
        _check_count("PNG", "chunks", chunks, size=len(data))
        if last:
            refuse_second_picture(data, "PNG", end=at)
            return


def _check_count(name: str, pieces: str, count: int, *, size: int) -> None:
    most = 1024 + size // 1024  # programs write pieces of at least some kilobytes
    if count > most:
        raise UnsupportedImage(
            f"The {name} has more than {most} {pieces} in {size} bytes, each next to empty. Save it anew."
        )


def _check_tiff(data: bytes, max_pixels: int) -> None:
    edges: list[int] = []
    for number, (tag, count, value) in enumerate(_entries(data)):
        if number >= MOST_PIECES:
            raise UnsupportedImage(f"The TIFF's directory has more than {MOST_PIECES} entries. Save it anew.")
        if tag in (_STRIPS, _TILES) and count > MOST_PIECES:
            raise UnsupportedImage(
                f"The TIFF is cut into {count} strips or tiles; at most {MOST_PIECES} are read. Save it with fewer."
            )
        if tag in (_TILE_WIDTH, _TILE_LENGTH):
            edges.append(value)
    if len(edges) == 2 and edges[0] * edges[1] > max_pixels:
        raise ImageTooLarge(
            f"The TIFF's tiles are {edges[0]}x{edges[1]} pixels; pictures of at most {max_pixels} are accepted. "
            "Save it with smaller ones."
        )


def _entries(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Tag, count, and the value if it is one number in place (else 0), of what the first directory lists."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    start, length, entry = (">Q", "Q", "HHQ") if big else (">I", "H", "HHI")
    head, room = struct.Struct(order + entry), 8 if big else 4
    try:
        (at,) = struct.unpack_from(order + start[1], data, 8 if big else 4)
        (count,) = struct.unpack_from(order + length, data, at)
        at += struct.calcsize(length if big else "=H")
        for _ in range(count):
            tag, kind, values = head.unpack_from(data, at)
            at += head.size
            form = _NUMBERS.get(kind) if values == 1 else None
            number = struct.unpack_from(order + form, data, at)[0] if form else 0
            at += room
            yield tag, values, number
    except (struct.error, OverflowError):
        return  # it was cut off, or is no TIFF: the decoder says so
