"""Tensors on the wire: what they become, and data that is not what its shape says."""

import struct
from typing import Any

import numpy as np
import pytest

from service.open_inference.tensors import datatype_of, from_binary, from_json, of_bytes, to_binary, to_json

HUGE = [2**62, 2**62, 2**62, 3]


def framed(*elements: bytes) -> memoryview:
    return memoryview(b"".join(struct.pack("<I", len(each)) + each for each in elements))


def test_bytes_come_in_whole_with_their_zeros() -> None:
    elements = [b"a\0\0", b"", b"\xff"]
    assert list(from_binary("BYTES", [3], framed(*elements))) == elements


def test_bytes_go_out_as_they_came_in() -> None:
    array = of_bytes([b"pass", b"fail\0"], (2,))
    assert datatype_of(array) == "BYTES"
    assert to_binary(array) == bytes(framed(b"pass", b"fail\0"))
    assert to_json(of_bytes(["ä".encode()], (1,))) == ["ä"]


def test_numbers_in_both_directions() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(from_binary("UINT8", [2, 4, 3], memoryview(pixels.tobytes())), pixels)
    np.testing.assert_array_equal(from_json("UINT8", [2, 4, 3], pixels.tolist()), pixels)
    np.testing.assert_array_equal(from_json("UINT8", [2, 4, 3], pixels.ravel().tolist()), pixels)
    scores = np.array([[0.1, 2.5]], np.float32)
    assert to_binary(scores) == struct.pack("<2f", 0.1, 2.5)
    np.testing.assert_array_equal(np.array(to_json(scores), np.float32), scores.ravel())


@pytest.mark.parametrize(
    ("shape", "data", "said"),
    [
        ([2], framed(b"abcd"), "before the length of element 1"),
        ([1], framed(b"ab", b"c"), "5 bytes are left over"),
        ([1], framed(b"ab")[:-1], "said to be 2 bytes, but 1 are left"),
        ([1], memoryview(struct.pack("<i", -1) + b"abc"), "said to be 4294967295 bytes, but 3"),
        ([1], memoryview(b"\1\0"), "cannot hold 1 elements"),
        (HUGE, framed(b"ab"), "cannot hold"),
    ],
)
def test_bytes_that_are_framed_wrongly(shape: list[int], data: memoryview, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_binary("BYTES", shape, data)


@pytest.mark.parametrize("shape", [[2, 2, 3], [1, 3, 3], HUGE])
def test_pixels_that_are_too_few_or_too_many(shape: list[int]) -> None:
    with pytest.raises(ValueError, match=r"takes \d+ bytes of data, not 10"):
        from_binary("UINT8", shape, memoryview(bytes(10)))


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("UINT8", [2], [1]),
        ("UINT8", [2], [1, 2, 3]),
        ("UINT8", HUGE, [1]),
        ("UINT8", [2], [1, 256]),
        ("UINT8", [2], [1, -1]),
        ("UINT8", [2], [1, 2.0]),
        ("UINT8", [2], [1, True]),
        ("UINT8", [2], [1, None]),
        ("UINT8", [2], ["1", "2"]),
        ("UINT8", [2], [[1, 2]]),
        ("UINT8", [1, 2], [[1, [2]]]),
        ("UINT8", [2, 2], [[1, 2], [3]]),
        ("UINT8", [2, 2], [[1, 2], 3]),
        ("UINT8", [2, 2], [[1, 2, 3, 4]]),
        ("BYTES", [1], [1]),
        ("BYTES", [1], [None]),
        ("BYTES", [2], ["a"]),
    ],
)
def test_json_that_is_not_what_its_shape_says(datatype: str, shape: list[int], data: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"takes|nested|elements of"):
        from_json(datatype, shape, data)


@pytest.mark.parametrize("datatype", ["FP32", "BOOL", "uint8", ""])
def test_other_datatypes_do_not_come_in(datatype: str) -> None:
    for read in (lambda: from_binary(datatype, [1], memoryview(b"1234")), lambda: from_json(datatype, [1], [1])):
        with pytest.raises(ValueError, match="neither BYTES nor UINT8"):
            read()


def test_other_types_do_not_go_out() -> None:
    with pytest.raises(ValueError, match="float64"):
        to_binary(np.zeros(1))
