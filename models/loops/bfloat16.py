"""Tensors as the arrays that compiled loops take. numba has no bfloat16: there it is its bits, in uint16."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import types
from numba.extending import overload
from numpy.typing import NDArray
from torch import Tensor


def numbers(tensor: Tensor) -> NDArray[Any]:
    """A tensor on the CPU, float32 or bfloat16, as an array on the same memory; bfloat16 as uint16."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    array: NDArray[Any] = tensor.numpy()
    return array


def wide(x: Any) -> Any:
    """A number of an array that `numbers` gives, as float32; in compiled code too."""
    return _of_bits(x) if isinstance(x, np.uint16) else _as_it_is(x)


def narrow(x: Any, like: Any) -> Any:
    """The float32 x as an array like `like` holds it, rounded to nearest even; in compiled code too."""
    return _to_bits(x, like) if like.dtype == np.uint16 else _unrounded(x, like)


def _of_bits(x: Any) -> Any:
    return np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)


def _as_it_is(x: Any) -> Any:
    return np.float32(x)


def _to_bits(x: Any, like: Any) -> Any:  # noqa: ARG001 - numba wants the same arguments as `narrow` has
    if x != x:  # not a number
        return np.uint16(0x7FC0)
    bits = np.float32(x).view(np.uint32)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


def _unrounded(x: Any, like: Any) -> Any:  # noqa: ARG001
    return np.float32(x)


@overload(wide, strict=False)
def _wide(x: Any) -> Callable[[Any], Any]:
    return _of_bits if x == types.uint16 else _as_it_is


@overload(narrow, strict=False)
def _narrow(x: Any, like: Any) -> Callable[[Any, Any], Any]:  # noqa: ARG001
    return _to_bits if like.dtype == types.uint16 else _unrounded
