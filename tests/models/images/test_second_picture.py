"""Two pictures in one body: the second must not slip behind a verdict on the first."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from models.errors import UnsupportedImage
from models.images import decode, media_type

Encode = Callable[..., bytes]
ENDING = ("PNG", "JPEG", "BMP", "WEBP")


@pytest.mark.parametrize("second", [*ENDING, "TIFF"])
@pytest.mark.parametrize("padding", [b"", b"\0" * 5, b"\r\n"])
@pytest.mark.parametrize("first", ENDING)
def test_another_picture_behind_the_first_is_refused(
    rgb: np.ndarray, encode: Encode, first: str, padding: bytes, second: str
) -> None:
    body = encode(rgb, first) + padding + encode(255 - rgb, second)
    with pytest.raises(
        UnsupportedImage, match=rf"several pictures in one body: behind the {first}.* begins a {second}"
    ):
        decode(body)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}])
def test_of_every_kind_of_jpeg(rgb: np.ndarray, encode: Encode, options: dict[str, object]) -> None:
    with pytest.raises(UnsupportedImage, match="several pictures"):
        decode(encode(rgb, "JPEG", **options) * 2)


@pytest.mark.parametrize("size", [0, 2**31])
def test_a_bitmap_that_does_not_know_its_size(rgb: np.ndarray, encode: Encode, size: int) -> None:
    data = encode(rgb, "BMP")
    data = data[:2] + size.to_bytes(4, "little") + data[6:]
    np.testing.assert_array_equal(decode(data), rgb)
    with pytest.raises(UnsupportedImage, match="several pictures"):
        decode(data + data)


@pytest.mark.parametrize("rest", [b"\0" * 100, b"\n", b"\r\n", b"BMW 118i, press 3", b"\xff\xff", b"ftypmp42", b"RIFF"])
def test_whatever_else_is_behind_a_picture_is_harmless(file: bytes, rest: bytes) -> None:
    np.testing.assert_array_equal(decode(file + rest), decode(file))


def test_what_a_phone_lists_is_no_second_picture(rgb: np.ndarray, encode: Encode) -> None:
    alone = encode(rgb, "JPEG")
    listed = encode(rgb, "MPO", save_all=True, append_images=[Image.fromarray(255 - rgb)])
    np.testing.assert_array_equal(decode(listed), decode(alone))


def test_the_bytes_of_a_picture_inside_another_are_pixels(rgb: np.ndarray, encode: Encode) -> None:
    inside = encode(255 - rgb, "PNG")
    pixels = np.frombuffer(inside.ljust(24 * 40 * 3, b"\0")[: 24 * 40 * 3], np.uint8).reshape(24, 40, 3)
    for name in ("PNG", "BMP", "TIFF"):
        data = encode(pixels, name, **({"compress_level": 0} if name == "PNG" else {}))
        np.testing.assert_array_equal(decode(data), pixels)
        assert media_type(data) == f"image/{name.lower()}"
