"""JPEGs of which part is missing or wrong: libjpeg decodes them with a warning, and they are refused all the same."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from models.errors import CorruptImage
from models.images import decode, decode_reduced

Encode = Callable[..., bytes]
END = b"\xff\xd9"


@pytest.fixture
def large(rgb: np.ndarray) -> np.ndarray:
    """Large enough to be cut, and to be decoded at a fraction."""
    noise = np.random.default_rng(0).integers(-20, 20, (256, 256, 3))
    return np.clip(np.resize(rgb, (256, 256, 3)).astype(int) + noise, 0, 255).astype(np.uint8)


KINDS = {
    "usual": {},
    "whole colours": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 2},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_pixels_that_are_missing_before_the_end_marker(
    large: np.ndarray, encode: Encode, kind: str, share: float
) -> None:
    data = encode(large, "JPEG", **KINDS[kind])
    half = data[: int(share * len(data))] + END
    with pytest.raises(CorruptImage, match="cannot be read to its end"):
        decode(half)
    with pytest.raises(CorruptImage, match="cannot be read to its end"):
        decode_reduced(half, least=64)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_print_colours_too(large: np.ndarray, encode: Encode, mode: str) -> None:
    data = encode(Image.fromarray(large).convert(mode), "JPEG")
    assert decode(data).shape == (256, 256, 3)
    with pytest.raises(CorruptImage):
        decode(data[: len(data) // 2] + END)


def test_pixels_that_were_overwritten(large: np.ndarray, encode: Encode) -> None:
    data = encode(large, "JPEG")
    middle = len(data) // 2
    with pytest.raises(CorruptImage):
        decode(data[:middle] + bytes(400) + data[middle + 400 :])


@pytest.mark.parametrize("kind", KINDS)
def test_filling_in_front_of_the_end_is_no_damage(large: np.ndarray, encode: Encode, kind: str) -> None:
    data = encode(large, "JPEG", **KINDS[kind])
    np.testing.assert_array_equal(decode(data[:-2] + bytes(7) + END), decode(data))


def test_what_follows_the_end_is_no_damage(large: np.ndarray, encode: Encode) -> None:
    data = encode(large, "JPEG")
    np.testing.assert_array_equal(decode(data + bytes(9)), decode(data))
