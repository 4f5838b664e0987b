"""How many bits a camera has used of a picture's 16."""

from collections.abc import Callable

import numpy as np
import pytest

from models.errors import CorruptImage, ImageTooLarge, UnsupportedImage
from models.images import significant_bits

Encode = Callable[..., bytes]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_bits_that_a_16_bit_picture_uses_are_counted(rgb: np.ndarray, as_stored: Encode, bits: int) -> None:
    wide = rgb.astype(np.uint16) * 257 >> 16 - bits
    wide[0, 0] = 2**bits - 1
    assert significant_bits(as_stored(wide)) == bits


def test_a_black_16_bit_picture_uses_few_bits(encode: Encode) -> None:
    assert significant_bits(encode(np.zeros((3, 4), np.uint16), "PNG")) == 8


def test_pictures_of_another_depth_have_no_such_bits(file_of_8_bits: bytes) -> None:
    assert significant_bits(file_of_8_bits) is None


def test_counting_bits_refuses_what_decoding_refuses(grey: np.ndarray, encode: Encode) -> None:
    with pytest.raises(UnsupportedImage, match="none of"):
        significant_bits(b"GIF89a")
    wide = encode(grey.astype(np.uint16) * 257, "PNG")
    with pytest.raises(CorruptImage):
        significant_bits(wide[:-30])
    with pytest.raises(ImageTooLarge, match="at most 10"):
        significant_bits(wide, max_pixels=10)
