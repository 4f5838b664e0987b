"""The tensors of a request -> the pictures of parts, as the native route would have got them.

`image` is BYTES (n,), a picture file each, or UINT8 (n, h, w, 3) or (h, w, 3), RGB. UINT8 becomes a PNG, which loses
nothing: it is what is kept, and it scores as the same PNG sent elsewhere. `serial` and `station` are BYTES (n,).
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from models.errors import ImageTooLarge
from models.heatmaps import encode_png
from service.errors import BadInference
from service.open_inference.messages import Frame, InferenceInput
from service.open_inference.tensors import from_binary, from_json
from service.uploads import LABEL, Upload

IMAGE, SERIAL, STATION = "image", "serial", "station"
_PNG_EDGE = 1_000_000  # libpng writes no longer ones


def read_parts(frame: Frame, *, limit: int, max_pixels: int) -> list[Upload]:
    """The pictures of a request, at most `limit` of at most `max_pixels` each, with serials and stations.

    Raises BadInference or ImageTooLarge, both before anything is made of the data.
    """
    inputs = _by_name(frame)
    if IMAGE not in inputs:
        raise BadInference(f"There is no input {IMAGE!r} (there is {', '.join(map(repr, inputs))}).")
    pictures = _pictures(*inputs[IMAGE], limit=limit, max_pixels=max_pixels)
    wishes = frame.request.wishes
    if wishes.serial is not None and len(pictures) > 1:
        raise BadInference(
            f"One serial cannot belong to {len(pictures)} parts. Give an input {SERIAL!r}, BYTES of shape "
            f"[{len(pictures)}], instead of the parameter."
        )
    serials = _labels(SERIAL, inputs.get(SERIAL), parameter=wishes.serial, count=len(pictures))
    stations = _labels(STATION, inputs.get(STATION), parameter=wishes.station, count=len(pictures))
    return [Upload(*each) for each in zip(pictures, serials, stations, strict=True)]


_Arrived = tuple[InferenceInput, memoryview | None]


def _by_name(frame: Frame) -> dict[str, _Arrived]:
    inputs: dict[str, _Arrived] = {}
    for each, binary in zip(frame.request.inputs, frame.binaries, strict=True):
        if each.name not in (IMAGE, SERIAL, STATION):
            raise BadInference(
                f"There is no input {each.name!r}. It is {IMAGE!r}, and if you like {SERIAL!r}, {STATION!r}."
            )
        if each.name in inputs:
            raise BadInference(f"Input {each.name!r} is given more than once.")
        inputs[each.name] = each, binary
    return inputs


def _array(tensor: InferenceInput, binary: memoryview | None) -> NDArray[Any]:
    try:
        if binary is not None:
            return from_binary(tensor.datatype, tensor.shape, binary)
        return from_json(tensor.datatype, tensor.shape, tensor.data or [])
    except ValueError as error:
        raise BadInference(f"Input {tensor.name!r} cannot be read: {error}.") from None


def _pictures(tensor: InferenceInput, binary: memoryview | None, *, limit: int, max_pixels: int) -> list[bytes]:
    """The picture files of `image`."""
    kind, shape = tensor.datatype, tensor.shape
    files = kind == "BYTES" and len(shape) == 1
    pixels = kind == "UINT8" and len(shape) in (3, 4) and shape[-1] == 3
    if not (files or pixels):
        raise BadInference(
            f"Input {IMAGE!r} is {kind} of shape {shape}. It must be BYTES [n], a picture file each, or UINT8 "
            "[n, height, width, 3] or [height, width, 3], RGB."
        )
    count = 1 if len(shape) == 3 else shape[0]
    if count > limit:
        raise BadInference(f"{count} pictures are more than the {limit} that one request may hold. Send several.")
    if pixels:
        _check_size(*shape[-3:-1], max_pixels=max_pixels)
        array: NDArray[np.uint8] = _array(tensor, binary)
        return [encode_png(picture) for picture in array.reshape(count, *shape[-3:])]
    elements: list[bytes] = list(_array(tensor, binary))
    return elements if binary is not None else [_from_base64(element) for element in elements]


def _check_size(height: int, width: int, *, max_pixels: int) -> None:
    if height * width > max_pixels or max(height, width) > _PNG_EDGE:
        raise ImageTooLarge(
            f"The picture is {width}x{height} = {width * height} pixels; at most {max_pixels} are accepted, and "
            f"{_PNG_EDGE} along an edge. Scale it down or crop it to the part."
        )


def _from_base64(element: bytes) -> bytes:
    try:
        return base64.b64decode(element, validate=True)
    except binascii.Error as error:
        raise BadInference(
            f"Input {IMAGE!r} is not base64 ({error}). A picture file in JSON is base64 without line breaks; better "
            "send it as binary data."
        ) from None


def _labels(name: str, arrived: _Arrived | None, *, parameter: str | None, count: int) -> Sequence[str | None]:
    """One label a picture, from the input of this name, or from the parameter."""
    if arrived is None:
        return [parameter] * count
    tensor, binary = arrived
    if parameter is not None:
        raise BadInference(f"{name!r} is given as a parameter and as an input. Give it once.")
    if tensor.datatype != "BYTES" or tensor.shape != [count]:
        raise BadInference(f"Input {name!r} is {tensor.datatype} of shape {tensor.shape}. It must be BYTES [{count}].")
    try:
        return [LABEL.validate_python(element.decode()) for element in _array(tensor, binary)]
    except UnicodeDecodeError:
        raise BadInference(f"Input {name!r} is not UTF-8.") from None
    except ValidationError as error:
        raise BadInference(f"Input {name!r}: {error.errors()[0]['msg']}.") from None
