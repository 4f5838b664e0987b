"""Damaged and forged pictures: files in every form that is read, each changed in ways that are drawn from a seed.

The same 2,400 files every time, as long as the libraries that write the whole ones do not change.
"""

import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Final

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image

EACH: Final = 80
"""How many changed files are made of each whole one."""
HEIGHT, WIDTH = 56, 72
Change = Callable[[random.Random, bytes], bytes]


def _pixels() -> NDArray[np.uint8]:
    """(h, w, 3): a gradient with noise, so that compressed data has substance everywhere."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(0).integers(0, 12, (HEIGHT, WIDTH, 3))
    return (np.stack([x * 3, y * 4, x + y], axis=-1) + noise).astype(np.uint8)


RGB = _pixels()
GREY = RGB[:, :, 0].copy()
RGBA = np.dstack([RGB, GREY])
WIDE = RGB.astype(np.uint16) * 257


def _file(pixels: NDArray[np.uint8] | Image.Image, name: str, **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def _tiff(pixels: NDArray[np.generic], **options: object) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "camera" * 20
    return exif


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _interlaced() -> bytes:
    """A PNG in Adam7's seven passes, which Pillow does not write."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [b"\0" + row.tobytes() for y, x, down, right in passes for row in RGB[y::down, x::right]]
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def _whole() -> dict[str, bytes]:
    photo, palette = Image.fromarray(RGB), Image.fromarray(GREY).convert("P")
    frames = {"save_all": True, "append_images": [Image.fromarray(255 - RGB)]}
    return {
        "jpeg": _file(RGB, "JPEG", quality=95),
        "jpeg grey": _file(GREY, "JPEG"),
        "jpeg progressive": _file(RGB, "JPEG", progressive=True),
        "jpeg cmyk": _file(photo.convert("CMYK"), "JPEG"),
        "jpeg turned": _file(RGB, "JPEG", exif=_turned()),
        "jpeg with restarts": _file(RGB, "JPEG", restart_marker_rows=1),
        "png": _file(RGB, "PNG"),
        "png grey": _file(GREY, "PNG"),
        "png rgba": _file(RGBA, "PNG"),
        "png palette": _file(palette, "PNG", transparency=b"\0" * 9),
        "png 16-bit": cv2.imencode(".png", WIDE)[1].tobytes(),
        "png interlaced": _interlaced(),
        "png turned": _file(RGB, "PNG", exif=_turned()),
        "bmp": _file(RGB, "BMP"),
        "bmp palette": _file(palette, "BMP"),
        "bmp 1-bit": _file(Image.fromarray(GREY > 99), "BMP"),
        "bmp rgba": _file(RGBA, "BMP"),
        "tiff": _file(RGB, "TIFF"),
        "tiff grey, 16-bit": _tiff(WIDE[:, :, 0].astype(">u2"), byteorder=">"),
        "tiff tiled, lzw": _tiled(),
        "tiff lzw": _file(RGB, "TIFF", compression="tiff_lzw"),
        "tiff deflated, big": _tiff(RGB, photometric="rgb", compression="zlib", bigtiff=True),
        "tiff planes": _tiff(RGB.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"),
        "tiff strips": _tiff(RGB, photometric="rgb", rowsperstrip=8),
        "tiff jpeg": _file(RGB, "TIFF", compression="jpeg"),
        "tiff cmyk, turned": _file(photo.convert("CMYK"), "TIFF", exif=_turned()),
        "webp": _file(RGB, "WEBP"),
        "webp lossless": _file(RGB, "WEBP", lossless=True),
        "webp rgba": _file(RGBA, "WEBP"),
        "webp turned": _file(RGB, "WEBP", exif=_turned()),
        "webp animated": _file(RGB, "WEBP", **frames),
    }


def _tiled() -> bytes:
    """A TIFF of LZW tiles, which neither Pillow nor tifffile writes: each tile is the one strip of a file."""
    padded = np.zeros((64, 80, 3), np.uint8)
    padded[:HEIGHT, :WIDTH] = RGB
    tiles = []
    for y, x in np.ndindex(4, 5):
        data = _file(padded[y * 16 : y * 16 + 16, x * 16 : x * 16 + 16], "TIFF", compression="tiff_lzw")
        tags = Image.open(BytesIO(data)).tag_v2  # type: ignore[attr-defined]
        tiles.append(data[tags[273][0] :][: tags[279][0]])
    count, behind = len(tiles), 8 + 2 + 11 * 12 + 4
    sizes = [len(tile) for tile in tiles]
    starts = [behind + 8 * count + 8 + sum(sizes[:number]) for number in range(count)]
    entries = [(256, 4, 1, WIDTH), (257, 4, 1, HEIGHT), (258, 3, 3, behind + 8 * count), (259, 3, 1, 5), (262, 3, 1, 2)]
    entries += [(277, 3, 1, 3), (284, 3, 1, 1), (322, 4, 1, 16), (323, 4, 1, 16)]
    entries += [(324, 4, count, behind), (325, 4, count, behind + 4 * count)]
    listed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    arrays = struct.pack(f"<{2 * count}I", *starts, *sizes) + struct.pack("<4H", 8, 8, 8, 0)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + listed + bytes(4) + arrays + b"".join(tiles)


def _pieces(data: bytes) -> list[bytes]:
    """A file cut where its format does: PNG chunks, JPEG segments, WebP chunks; other formats every 64 bytes."""
    if data.startswith(b"\x89PNG"):
        starts, at = [0], 8
        while at < len(data):
            starts.append(at)
            at += 12 + int.from_bytes(data[at : at + 4], "big")
    elif data.startswith(b"\xff\xd8"):
        starts = [0, *(at for at in range(2, len(data) - 1) if data[at] == 255 and data[at + 1] not in (0, 255))]
    elif data.startswith(b"RIFF"):
        starts, at = [0], 12
        while at < len(data):
            starts.append(at)
            at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    else:
        starts = list(range(0, len(data), 64))
    return [data[start:stop] for start, stop in zip(starts, [*starts[1:], len(data)], strict=True)]


def _flip(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _flip_in_header(draw: random.Random, data: bytes) -> bytes:
    return _flip(draw, data[:120]) + data[120:]


def _run(draw: random.Random, data: bytes) -> bytes:
    start, length = draw.randrange(len(data)), draw.choice((1, 2, 4, 16, 256))
    run = draw.choice((bytes(length), b"\xff" * length, draw.randbytes(length)))
    return data[:start] + run + data[start + length :]


def _cut(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.choice((draw.randrange(len(data)), len(data) - draw.randrange(1, 40)))]


def _no_tail(draw: random.Random, data: bytes) -> bytes:
    kept = draw.randrange(len(data))
    return data[:kept] + draw.choice((b"\0", b"\xff")) * (len(data) - kept)


def _number(draw: random.Random, data: bytes) -> bytes:
    """A length, a size or an offset made huge, or nothing."""
    value = draw.choice((0, 1, 60_000, 65_535, 2**20, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1))
    width, order = draw.choice((2, 4, 4, 8)), draw.choice(("big", "little"))
    start = draw.choice((draw.randrange(min(120, len(data))), draw.randrange(len(data))))
    return data[:start] + (value % 256**width).to_bytes(width, order) + data[start + width :]  # type: ignore[arg-type]


def _swap(draw: random.Random, data: bytes) -> bytes:
    pieces = _pieces(data)
    one, other = draw.randrange(len(pieces)), draw.randrange(len(pieces))
    pieces[one], pieces[other] = pieces[other], pieces[one]
    return b"".join(pieces)


def _drop(draw: random.Random, data: bytes) -> bytes:
    pieces = _pieces(data)
    del pieces[draw.randrange(len(pieces))]
    return b"".join(pieces)


def _repeat(draw: random.Random, data: bytes) -> bytes:
    pieces = _pieces(data)
    which = draw.randrange(len(pieces))
    return b"".join([*pieces[:which], *[pieces[which]] * draw.choice((2, 3, 200)), *pieces[which + 1 :]])


def _graft(draw: random.Random, data: bytes) -> bytes:
    """Half of this and half of another, or one behind or within the other."""
    other = draw.choice(list(WHOLE.values()))
    start, stop = draw.randrange(len(data)), draw.randrange(len(other))
    return draw.choice((data + other, data[:start] + other[stop:], data[:start] + other + data[start:]))


CHANGES: Final[dict[str, Change]] = {
    change.__name__.strip("_"): change
    for change in (_flip, _flip_in_header, _run, _cut, _no_tail, _number, _swap, _drop, _repeat, _graft)
}
WHOLE: Final = _whole()


def _sealed(data: bytes) -> bytes:
    """A PNG with checksums that fit, so that what was changed is not refused for them alone."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    head, *chunks = _pieces(data)
    return head + b"".join(
        each if len(each) < 12 else each[:-4] + struct.pack(">I", zlib.crc32(each[4:-4])) for each in chunks
    )


def corpus(*, seed: int, each: int) -> dict[str, bytes]:
    """`each` changed files of every whole one, by names that tell how they were made."""
    draw = random.Random(seed)
    files = {}
    for number in range(each):
        for form, data in WHOLE.items():
            names = [draw.choice(list(CHANGES)) for _ in range(draw.choice((1, 1, 1, 2, 3)))]
            for name in names:
                if len(data) > 100:
                    data = CHANGES[name](draw, data)
            if draw.random() < 0.5:
                data = _sealed(data)
            files[f"{number:04d} {form}: {', '.join(names)}"] = data
    return files


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """The corpus."""
    return corpus(seed=4, each=EACH)


@pytest.fixture(scope="session")
def whole() -> dict[str, bytes]:
    """The files that it was made of."""
    return WHOLE
