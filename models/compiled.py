"""Loops that are compiled for the processor at hand, by numba: what torch would do in many passes over memory.

Compiled code lies in numba's cache, beside the source or in the user's cache folder (NUMBA_CACHE_DIR says where else).
It may be lost or damaged, or find no room, at the price of being compiled again.
"""

import logging
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.core.caching import NullCache
from numba.extending import intrinsic, overload
from numpy.typing import NDArray
from torch import Tensor

logger = logging.getLogger(__name__)
_LONG = 1.0  # seconds, where code that is kept takes tenths
_LINE = 64  # bytes of memory that a processor fetches at a time
# Sums may be taken in any order. What is not a number stays that: it is a fault and must not pass for a distance.
_FAST = {"reassoc", "contract", "nsz"}
# OpenMP, as torch: both then have the same threads. What numba would fall back to ends the process where two threads
# call at the same time.
numba.config.THREADING_LAYER = "omp"  # type: ignore[attr-defined]
_MOST_THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]

Function = TypeVar("Function", bound=Callable[..., Any])
_all: list[Any] = []  # that was compiled


def compiled(function: Function) -> Function:
    """A function of arrays and numbers, compiled when it is first called; Python's lock is free meanwhile."""
    return _made(function, fastmath=_FAST)


def compiled_side_by_side(function: Function) -> Function:
    """The same, with the rounds of its `numba.prange` shared out among torch's threads. Call it through `run`."""
    return _made(function, parallel=True)


def _made(function: Function, **options: Any) -> Function:
    try:
        made = numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # there is no folder that it may write to
        made = numba.njit(nogil=True, **options)(function)
    _all.append(made)
    return cast(Function, made)


@cache
def can_run() -> bool:
    """Whether compiled loops can run side by side here; torch's own operators do their work where they cannot."""
    threads = torch.get_num_threads()
    try:
        numba.set_num_threads(1)
    except ValueError:
        logger.warning("numba finds no OpenMP here: the detector is slower without it.")
        return False
    finally:
        torch.set_num_threads(threads)  # which starting numba's threads sets to the number of cores
    return True


def run(loops: Callable[..., None], *arguments: Any) -> None:
    """Run what `compiled_side_by_side` made, with as many threads as torch may use here."""
    if not can_run():
        raise RuntimeError("compiled loops cannot run here")
    numba.set_num_threads(max(1, min(torch.get_num_threads(), _MOST_THREADS)))
    loops(*arguments)


def warm_up(call: Callable[[], object]) -> None:
    """Make a call that compiles what it calls, so that no picture waits for it; whatever the cache holds."""
    started = time.perf_counter()
    try:
        call()
    except Exception as error:  # numba lets through whatever reading or writing the cache raises
        said = str(error).partition("\n")[0]
        logger.warning("numba's cache cannot be used (%s: %s): compiling anew.", type(error).__name__, said)
        for each in _all:
            try:
                each.recompile()  # which empties its cache
            except Exception:
                logger.debug("the cache of %s stays as it is", each.__name__)
            each._cache = NullCache()
        call()
    took = time.perf_counter() - started
    if took > _LONG:
        logger.info("compiled loops for this processor in %.0f s; it is done once, where numba can keep them", took)


def numbers(tensor: Tensor) -> NDArray[Any]:
    """A tensor on the CPU as an array on the same memory; bfloat16 as the uint16 that `wide` takes."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    array: NDArray[Any] = tensor.numpy()
    return array


def wide(x: Any) -> Any:
    """In compiled code: a number of what `numbers` gives, as float32."""
    raise NotImplementedError


def narrow(x: Any, like: Any) -> Any:
    """In compiled code: the float32 x as an array like `like` holds it, rounded to nearest even."""
    raise NotImplementedError


def fetch(address: Any, size: Any) -> None:
    """In compiled code: ask for `size` bytes from an address on, which are read soon."""
    raise NotImplementedError


@overload(wide, strict=False)
def _wide(x: Any) -> Callable[[Any], Any]:
    if x == types.uint16:
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
    return lambda x: np.float32(x)


@overload(narrow, strict=False)
def _narrow(x: Any, like: Any) -> Callable[[Any, Any], Any]:  # noqa: ARG001 - numba chooses by the types of both
    if like.dtype == types.uint16:
        return _as_bfloat16
    return lambda x, like: x  # noqa: ARG005


def _as_bfloat16(x: Any, like: Any) -> Any:  # noqa: ARG001
    bits = np.float32(x).view(np.uint32)
    rounded = np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))
    return rounded if x == x else np.uint16(0x7FC0)  # not a number


@intrinsic
def _prefetch(_: Any, address: Any) -> Any:  # noqa: ARG001 - numba passes its type
    """The processor's own instruction, which may be given any address and waits for nothing."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(prefetch, [builder.inttoptr(arguments[0], byte), number(0), number(2), number(1)])

    return types.void(types.int64), generate


@overload(fetch, strict=False)
def _fetch(address: Any, size: Any) -> Callable[[Any, Any], None]:  # noqa: ARG001
    def lines(address: Any, size: Any) -> None:
        for line in range(address, address + size, _LINE):
            _prefetch(line)  # type: ignore[call-arg]

    return lines
