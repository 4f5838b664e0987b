"""Small or cheap-looking files that would cost a decoder minutes or gigabytes are refused by what they are made of."""

import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from models.errors import CorruptImage, ImageError, ImageTooLarge, UnsupportedImage
from models.image_structure import MOST_EXIF, MOST_PIECES, MOST_SCANS
from models.images import decode

Encode = Callable[..., bytes]
MANY = 500_000


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bare_tiff(*changes: tuple[int, int, int], behind: bytes = bytes(64), big: bool = False) -> bytes:
    """8x8 grey pixels; entries are (tag, count, value), and those given replace or join the others."""
    entries = {tag: (tag, 1, value) for tag, value in ((256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (277, 1))}
    entries |= {273: (273, 1, 400), 278: (278, 1, 8), 279: (279, 1, 64)} | {entry[0]: entry for entry in changes}
    listed = [struct.pack("<HHQQ" if big else "<HHII", tag, 4, count, value) for tag, count, value in entries.values()]
    head = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, len(listed)) if big else b"II*\0\x08\0\0\0"
    return (head + (b"" if big else struct.pack("<H", len(listed))) + b"".join(listed)).ljust(400, b"\0") + behind


def refused(kind: type[ImageError], said: str, data: bytes, **limit: int) -> None:
    begun = time.perf_counter()
    with pytest.raises(kind, match=said):
        decode(data, **limit)
    assert time.perf_counter() - begun < 2  # by their count, not by working through them


def test_a_jpeg_of_many_scans(rgb: np.ndarray, encode: Encode) -> None:
    data = encode(rgb, "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    usual = data.count(b"\xff\xda")
    refused(CorruptImage, "to its end", data[:-2] + last * (MOST_SCANS - usual) + data[-2:])  # worked through
    refused(UnsupportedImage, "scans", data[:-2] + last * (MOST_SCANS - usual + 1) + data[-2:])
    hidden = data[:-2] + b"\xff\xfe\0\x04\xff\xd9" + last * MOST_SCANS + data[-2:]  # behind an end in a comment
    refused(UnsupportedImage, "scans", hidden)


@pytest.mark.parametrize("piece", [b"\xff\xfe\0\2", b"\xff\xd8", b"\xff"])
def test_a_jpeg_of_many_pieces(rgb: np.ndarray, encode: Encode, piece: bytes) -> None:
    data = encode(rgb, "JPEG")
    refused(UnsupportedImage, "segments|filling", data[:2] + piece * MANY + data[2:])


def test_a_jpeg_of_nothing_but_filling_takes_no_time(rgb: np.ndarray, encode: Encode) -> None:
    data = encode(rgb, "JPEG")
    refused(CorruptImage, "end marker", data[:-2] + b"\xff" * 20 * MANY + b"\0")


def test_much_exif(rgb: np.ndarray, encode: Encode) -> None:
    data = encode(rgb, "JPEG")
    segment = b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)
    refused(UnsupportedImage, "EXIF", data[:2] + segment * 17 + data[2:])
    decode(data[:2] + b"\xff\xe1\0\x16Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + data[2:])
    for name in ("PNG", "WEBP"):
        refused(UnsupportedImage, "EXIF", encode(rgb, name, exif=b"Exif\0\0MM\0*\0\0\0\x08" + bytes(MOST_EXIF)))


@pytest.mark.parametrize("name", [b"IDAT", b"abCd"])
def test_a_png_of_many_chunks(rgb: np.ndarray, encode: Encode, name: bytes) -> None:
    data = encode(rgb, "PNG")
    end = data.index(b"IEND") - 4
    decode(data[:end] + chunk(name, b"") * 1000 + data[end:])
    refused(UnsupportedImage, "chunks", data[:end] + chunk(name, b"") * MANY + data[end:])


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_of_many_strips(big: bool) -> None:
    assert decode(bare_tiff(big=big)).shape == (8, 8, 3)
    strips = struct.pack("<Q" if big else "<I", 400) * MANY
    data = bare_tiff((273, MANY, 464), (278, 1, 1), behind=bytes(64) + strips, big=big)
    refused(UnsupportedImage, f"{MANY} strips", data)


def test_a_tiff_of_many_entries() -> None:
    entries = b"".join(struct.pack("<HHQQ", 40_000 + n % 20_000, 4, 1, 1) for n in range(MOST_PIECES + 1))
    data = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, MOST_PIECES + 1) + entries
    refused(UnsupportedImage, "entries", data)


def test_a_tiff_whose_tiles_are_larger_than_pictures_may_be() -> None:
    tiles = (322, 1, 2**20), (323, 1, 2**20), (324, 1, 400), (325, 1, 64), (259, 1, 5)
    refused(ImageTooLarge, "tiles are 1048576x1048576", bare_tiff(*tiles))
    small = (322, 1, 32), (323, 1, 32), (324, 1, 400), (325, 1, 64), (259, 1, 5)
    refused(ImageTooLarge, "at most 1000 ", bare_tiff(*small), max_pixels=1000)
