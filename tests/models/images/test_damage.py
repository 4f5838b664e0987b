"""Files that were cut off or changed are noticed, whatever was done to them."""

import re
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import CorruptImage, ImageError
from models.images import decode

Encode = Callable[..., bytes]


def test_a_file_that_was_cut_off_is_never_half_judged(file: bytes) -> None:
    whole = decode(file)
    for length in range(len(file)):
        try:
            part = decode(file[:length])
        except ImageError:
            continue
        np.testing.assert_array_equal(part, whole)  # all that was missing is what comes after the pixels


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_what_is_said_of_damage_is_not_the_decoder_s(rgb: np.ndarray, encode: Encode, form: str) -> None:
    whole = encode(rgb, form)
    for data in (whole[:40] + bytes(60), whole[: len(whole) // 2]):
        with pytest.raises(CorruptImage) as refusal:
            decode(data)
        assert not re.search(r"Error|broken|truncated|identify|libjpeg|strict", str(refusal.value))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_filled_up_with_zeros_is_refused(rgb: np.ndarray, encode: Encode, progressive: bool) -> None:
    thumbnail = encode(rgb[::4, ::4], "JPEG")
    data = encode(rgb, "JPEG", progressive=progressive, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + thumbnail)
    kept = len(data) * 3 // 4
    with pytest.raises(CorruptImage, match="end marker"):
        decode(data[:kept] + bytes(len(data) - kept))


def test_a_jpeg_with_a_film_behind_it_is_read(rgb: np.ndarray, encode: Encode) -> None:
    data = encode(rgb, "JPEG")
    np.testing.assert_array_equal(decode(data + b"....ftypmp42\xff\xda...."), decode(data))


@pytest.mark.parametrize("compress_level", [0, 6])
def test_a_flipped_bit_in_a_png_is_noticed(rgb: np.ndarray, encode: Encode, compress_level: int) -> None:
    data = encode(rgb, "PNG", compress_level=compress_level)
    start, stop = data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    for place in np.linspace(start, stop - 1, 40).astype(int):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(CorruptImage):
            decode(bytes(damaged))


def test_a_tiff_that_misses_a_strip_is_noticed(rgb: np.ndarray, tiff: Encode) -> None:
    whole = tiff(rgb, photometric="rgb", rowsperstrip=8)
    decode(whole)
    offsets_tag = whole.index(np.array([273, 4], "<u2").tobytes())  # three strips become two
    assert whole[offsets_tag + 4] == 3
    data = bytearray(whole)
    data[offsets_tag + 4] = 2
    with pytest.raises(CorruptImage, match="fewer strips"):
        decode(bytes(data))


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused_by_name(files: list[bytes], data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(files)))
    for _ in range(data.draw(st.integers(1, 6))):
        # Headers are where the surprises are, so half of the damage goes there.
        end = data.draw(st.sampled_from([min(120, len(damaged)), len(damaged)]))
        damaged[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(damaged), max_pixels=1_000_000)
    except ImageError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    assert decoded.shape[2] == 3


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II\x2a\0", b"MM\0\x2b"]),
)
def test_any_bytes_are_read_or_refused_by_name(noise: bytes, start: bytes) -> None:
    with pytest.raises(ImageError):
        decode(start + noise)


def png(stream: bytes, *, interlaced: bool = False) -> bytes:
    """24 x 40 pixels of RGB, or what there is of them."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 40, 24, 8, 2, 0, 0, interlaced)),
        (b"IDAT", zlib.compress(stream)),
        (b"IEND", b""),
    )
    written = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_whose_stream_ends_well_but_before_the_last_row_is_refused(*, interlaced: bool) -> None:
    rows = [bytes(1 + 3 * 40)] * 24
    if interlaced:
        passes = [(5, 3), (5, 3), (10, 3), (10, 6), (20, 6), (20, 12), (40, 12)]
        rows = [bytes(1 + 3 * width) for width, height in passes for _ in range(height)]
    assert decode(png(b"".join(rows), interlaced=interlaced)).shape == (24, 40, 3)
    for kept in range(len(rows)):
        with pytest.raises(CorruptImage):
            decode(png(b"".join(rows[:kept]), interlaced=interlaced))
    for cut in (1, 2, 60):
        with pytest.raises(CorruptImage):
            decode(png(b"".join(rows)[:-cut], interlaced=interlaced))


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("planes", [False, True])
def test_an_uncompressed_tiff_with_a_short_strip_or_tile_is_refused(
    rgb: np.ndarray, *, tiled: bool, planes: bool
) -> None:
    buffer = BytesIO()
    pieces: dict[str, Any] = {"tile": (16, 16)} if tiled else {"rowsperstrip": 5}
    pixels = rgb.transpose(2, 0, 1) if planes else rgb
    tifffile.imwrite(
        buffer, pixels, photometric="rgb", planarconfig="separate" if planes else "contig", metadata=None, **pieces
    )
    whole = buffer.getvalue()
    np.testing.assert_array_equal(decode(whole), rgb)
    with tifffile.TiffFile(BytesIO(whole)) as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]
        offsets, lengths = (tags[name] for name in (("TileOffsets", "TileByteCounts") if tiled else (273, 279)))
    for tag, value in ((lengths, 0), (lengths, lengths.value[1] // 2), (offsets, 0)):
        size = 4 if tag.dtype == 4 else 2
        damaged = bytearray(whole)
        at = tag.valueoffset + size  # the second piece
        damaged[at : at + size] = value.to_bytes(size, "little")
        with pytest.raises(CorruptImage):
            decode(bytes(damaged))
