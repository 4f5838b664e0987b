"""Tensors as the protocol carries them: numpy arrays <-> binary data or JSON lists.

BYTES is an object array of `bytes`, UINT8 and FP32 are arrays of those types. BYTES and UINT8 come in, BYTES and FP32
go out; the protocol's other datatypes are refused. Nothing is allocated for a shape before the data was found to be
as long as the shape says.
"""

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FP32 = np.dtype("<f4")
_LENGTH = struct.Struct("<I")  # before every element of a BYTES tensor


def datatype_of(array: NDArray[Any]) -> str:
    """What the protocol calls an outgoing array's type. Raises ValueError for one that does not go out."""
    if array.dtype == object:
        return "BYTES"
    if array.dtype == _FP32:
        return "FP32"
    raise ValueError(f"arrays of {array.dtype} are not sent")


def from_binary(datatype: str, shape: Sequence[int], data: memoryview) -> NDArray[Any]:
    """Binary data -> an array of this shape; of UINT8 it is a view of the data.

    Raises ValueError if the data is not exactly as long as shape and datatype say.
    """
    if datatype == "BYTES":
        return of_bytes(_split(math.prod(shape), data), shape)
    _check_uint8(datatype)
    if len(data) != math.prod(shape):
        raise ValueError(f"UINT8 of shape {list(shape)} takes {math.prod(shape)} bytes of data, not {len(data)}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def from_json(datatype: str, shape: Sequence[int], data: list[Any]) -> NDArray[Any]:
    """JSON elements, flat or nested as the shape is -> an array of this shape. A text becomes its UTF-8 bytes.

    Raises ValueError if there are not as many elements as the shape says, or elements of another type.
    """
    elements = _flat(data, shape)
    kinds = set(map(type, elements))
    if datatype == "BYTES":
        if kinds != {str}:
            raise ValueError("the elements of BYTES are JSON strings")
        return of_bytes([element.encode("utf-8", "surrogatepass") for element in elements], shape)
    _check_uint8(datatype)
    if kinds != {int} or min(elements) < 0 or max(elements) > 255:
        raise ValueError("the elements of UINT8 are whole numbers from 0 to 255")
    return np.array(elements, np.uint8).reshape(shape)


def of_bytes(elements: Sequence[bytes], shape: Sequence[int]) -> NDArray[np.object_]:
    """An array of `bytes`, which numpy would otherwise cut at zeros."""
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def to_binary(array: NDArray[Any]) -> bytes:
    """An array -> its binary data: little-endian, row by row, without padding."""
    if datatype_of(array) == "BYTES":
        return b"".join(_LENGTH.pack(len(element)) + element for element in array.flat)
    return array.astype(_FP32).tobytes()


def to_json(array: NDArray[Any]) -> list[Any]:
    """An array -> its JSON elements, row by row; BYTES must hold UTF-8."""
    if datatype_of(array) == "BYTES":
        return [element.decode() for element in array.flat]
    elements: list[Any] = array.ravel().tolist()
    return elements


def _check_uint8(datatype: str) -> None:
    if datatype != "UINT8":
        raise ValueError(f"the datatype {datatype!r} is neither BYTES nor UINT8")


def _split(count: int, data: memoryview) -> list[bytes]:
    """The elements of a BYTES tensor."""
    if len(data) < count * _LENGTH.size:
        raise ValueError(f"{len(data)} bytes of binary data cannot hold {count} elements, each behind 4 of its length")
    elements = []
    start = 0
    for number in range(count):
        if len(data) - start < _LENGTH.size:
            raise ValueError(f"the binary data ends before the length of element {number}")
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size
        if len(data) - start < length:
            raise ValueError(f"element {number} is said to be {length} bytes, but {len(data) - start} are left")
        elements.append(bytes(data[start : start + length]))
        start += length
    if start != len(data):
        raise ValueError(f"{len(data) - start} bytes are left over behind the last of {count} elements")
    return elements


def _flat(data: list[Any], shape: Sequence[int]) -> list[Any]:
    """The elements row by row, of lists that are nested as the shape is, or are one flat list already."""
    nested = len(shape) > 1 and bool(data) and isinstance(data[0], list)
    wanted = shape[0] if nested else math.prod(shape)
    if len(data) != wanted:
        raise ValueError(f"shape {list(shape)} takes {wanted} {'rows' if nested else 'elements'}, not {len(data)}")
    level = data
    for extent in shape[1:] if nested else ():
        if not all(isinstance(row, list) and len(row) == extent for row in level):
            raise ValueError(f"the data is not nested as its shape {list(shape)} says")
        level = list(chain.from_iterable(level))
    return level
