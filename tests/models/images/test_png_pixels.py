"""PNGs with their pixels stored: the same pictures, and whatever is odd or damaged as it came."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

import models.png_pixels
from models.png_pixels import store_pixels

Encode = Callable[..., bytes]
COMPRESSED = {"compress_level": 9}, {"compress_level": 1}, {"compress_level": 0}, {"compress_type": 2}


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_stream(data: bytes, stream: bytes, *, pieces: int = 1) -> bytes:
    """The PNG with another stream of pixels, in so many chunks."""
    begin, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    step = max(1, -(-len(stream) // pieces))
    chunks = (chunk(b"IDAT", stream[at : at + step]) for at in range(0, max(1, len(stream)), step))
    return data[:begin] + b"".join(chunks) + data[end:]


def stream_of(data: bytes) -> bytes:
    """What its one chunk of pixels holds."""
    begin = data.index(b"IDAT")
    return data[begin + 4 : begin + 4 + int.from_bytes(data[begin - 4 : begin], "big")]


def seen(data: bytes) -> np.ndarray:
    with Image.open(BytesIO(data)) as image:
        image.load()
        return np.asarray(image)


def test_it_holds_the_same_pixels(file: bytes) -> None:
    if not file.startswith(b"\x89PNG"):
        return
    stored = store_pixels(file)
    assert (stored is file) is not stream_of(file).startswith(b"\x78")  # libpng: less than 32 kB, less of a window
    np.testing.assert_array_equal(seen(stored), seen(file))
    with Image.open(BytesIO(stored)) as after, Image.open(BytesIO(file)) as before:
        assert (after.mode, after.info) == (before.mode, before.info)


@pytest.mark.parametrize("options", COMPRESSED)
def test_however_they_were_compressed(rgb: np.ndarray, encode: Encode, options: dict[str, int]) -> None:
    stored = store_pixels(encode(rgb, "PNG", **options))
    np.testing.assert_array_equal(seen(stored), rgb)
    assert len(stream_of(stored)) > rgb.size


def test_in_many_chunks_and_with_others_behind(rgb: np.ndarray, encode: Encode) -> None:
    data = with_stream(encode(rgb, "PNG"), stream_of(encode(rgb, "PNG")), pieces=9)
    end = data.index(b"IEND") - 4
    data = data[:end] + chunk(b"tEXt", b"Comment\0made of pieces") + data[end:]
    stored = store_pixels(data)
    assert (stored.count(b"IDAT"), stored.count(b"made of pieces")) == (1, 1)
    np.testing.assert_array_equal(seen(stored), rgb)


def test_opencv_s_own_files(rgb: np.ndarray) -> None:
    data = cv2.imencode(".png", rgb[:, :, ::-1])[1].tobytes()
    np.testing.assert_array_equal(seen(store_pixels(data)), rgb)


@pytest.mark.parametrize(
    "damage",
    [
        lambda stream: stream[:-1],  # of the checksum
        lambda stream: stream[:-4] + bytes(4),
        lambda stream: stream[: len(stream) // 2],
        lambda stream: stream + b"more",
        lambda stream: zlib.compress(zlib.decompress(stream)[:-1]),
        lambda stream: zlib.compress(zlib.decompress(stream) + b"\0"),
        lambda stream: b"\x08\x1d" + stream[2:],  # a window of 256 bytes
        lambda stream: stream[:0],
        lambda stream: stream[:9] + bytes(9) + stream[18:],
    ],
)
def test_what_is_not_as_it_should_be_is_left_alone(
    rgb: np.ndarray, encode: Encode, damage: Callable[[bytes], bytes]
) -> None:
    data = encode(rgb, "PNG")
    odd = with_stream(data, damage(stream_of(data)))
    assert store_pixels(odd) is odd


def test_so_are_interlaced_ones_cut_ones_and_what_has_no_header(rgb: np.ndarray, encode: Encode) -> None:
    data = encode(rgb, "PNG")
    for odd in (data[:28] + b"\1" + data[29:], data[:20], data[:60], b"", data[:8] + data[33:]):
        assert store_pixels(odd) is odd


def test_so_are_large_ones(rgb: np.ndarray, encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    data, size = encode(rgb, "PNG"), rgb.shape[0] * (1 + rgb.shape[1] * 3)
    for most, stays in ((size, False), (size - 1, True)):
        monkeypatch.setattr(models.png_pixels, "MOST_BYTES", most)
        assert (store_pixels(data) is data) is stays


def test_a_few_bytes_that_inflate_to_many_are_left_alone(
    rgb: np.ndarray, encode: Encode, little_memory: Callable[[], object]
) -> None:
    bomb = with_stream(encode(rgb, "PNG"), zlib.compress(bytes(2**28)))
    with little_memory():  # type: ignore[attr-defined]
        assert store_pixels(bomb) is bomb
