"""Compiling by numba, and threads to run what it compiled."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch

from models.loops import code_cache

logger = logging.getLogger(__name__)
_LONG = 2.0  # seconds, where code that is kept takes tenths
_ATTEMPTS = 64  # to compile where nothing can be kept: more than there are functions
# Sums may be taken in any order. What is not a number stays that: it is a fault and must not pass for a distance.
_FAST = {"reassoc", "contract", "nsz"}
# OpenMP first, as torch has it: both then have the same threads. The second is part of numba.
numba.config.THREADING_LAYER = "default"  # type: ignore[attr-defined]
numba.config.THREADING_LAYER_PRIORITY = ["omp", "workqueue", "tbb"]  # type: ignore[attr-defined]
numba.config.CACHE_LOCATOR_CLASSES = "UserProvidedCacheLocator"  # type: ignore[attr-defined]
_MOST_THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
_one_at_a_time = threading.Lock()

Function = TypeVar("Function", bound=Callable[..., Any])
_all: list[Any] = []  # that is compiled when it is called


def compiled(function: Function) -> Function:
    """A function of arrays and numbers, compiled when it is first called; Python's lock is free meanwhile."""
    return _made(function, fastmath=_FAST)


def compiled_side_by_side(function: Function) -> Function:
    """The same, with the rounds of its `numba.prange` shared out among threads. Call it through `run`."""
    return _made(function, parallel=True)


def _made(function: Function, **options: Any) -> Function:
    made = numba.njit(nogil=True, **options)(function)
    _all.append(made)
    return cast(Function, made)


def run(loops: Callable[..., None], *arguments: Any, rounds: int) -> None:
    """Run what `compiled_side_by_side` made, with as many threads as torch may use here.

    `loops` takes an array of flags as well, as the last argument, and sets one when a round is done. Raises MemoryError
    where that has not happened: numba drops what goes wrong in a thread, and nothing else can.
    """
    done = np.zeros(rounds, np.bool_)
    with contextlib.nullcontext() if _with_openmp() else _one_at_a_time:
        numba.set_num_threads(max(1, min(torch.get_num_threads(), _MOST_THREADS)))
        try:
            loops(*arguments, done)
        except SystemError:  # so Python says that it has failed in the thread that calls
            if done.all():
                raise
    if not done.all():
        raise MemoryError(f"{int((~done).sum())} of {rounds} rounds of a compiled loop did not come to their end")


@cache
def _with_openmp() -> bool:
    """Start numba's threads. Where OpenMP is missing, they end the process if two callers ask at once."""
    threads = torch.get_num_threads()
    try:
        numba.set_num_threads(1)
    finally:
        torch.set_num_threads(threads)  # which starting numba's threads sets to the number of cores
    if numba.threading_layer() != "workqueue":  # type: ignore[attr-defined]
        return True
    logger.warning(
        "numba finds no OpenMP: detectors are slower. Install libgomp.so.1.0.0 (Debian: apt install libgomp1)."
    )
    return False


def warm_up(call: Callable[[], object]) -> bool:
    """Make a call that compiles what it calls, so that no picture waits for it; False where that cannot be compiled.

    Raises MemoryError where there is too little.
    """
    started = time.perf_counter()
    notice = threading.Timer(_LONG, _say_that_it_takes_long)
    notice.start()
    try:
        with code_cache.opened() as folder:
            _compile(call, folder)
    except MemoryError:
        raise
    except Exception as error:  # a compiler's own fault; what it would have compiled torch can do
        logger.warning("loops cannot be compiled (%s: %s): detectors are slower.", type(error).__name__, _line(error))
        logger.debug("loops cannot be compiled", exc_info=True)
        return False
    finally:
        notice.cancel()
    took = time.perf_counter() - started
    if took > _LONG:
        logger.info("loops were ready in %.0f s", took)
    return True


def _say_that_it_takes_long() -> None:  # as a warning, since commands show no less
    logger.warning(
        "Compiling loops for this processor, or waiting for a process that does: some ten seconds, the first time."
    )


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _compile(call: Callable[[], object], folder: Path | None) -> None:
    """Make the call, with the code that is kept in the folder and keeping there what is not."""
    if folder is not None:
        numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
        for each in _all:
            each.enable_caching()
    try:
        _until_compiled(call)
    except MemoryError:
        raise
    except Exception as error:
        if folder is None or code_cache.is_empty(folder):
            raise
        logger.warning("compiled loops in %s are of no use (%s): compiling them anew.", folder, _line(error))
        code_cache.empty(folder)
        _until_compiled(call)


def _until_compiled(call: Callable[[], object]) -> None:
    """Each time that keeping some code fails, over a full disk for one, that code is compiled all the same."""
    for attempt in range(_ATTEMPTS):
        try:
            call()
        except OSError as error:
            if attempt == 0:
                logger.warning("compiled loops cannot be kept (%s): the next process compiles them again.", error)
        else:
            return
    raise RuntimeError("what is compiled is not there when it is called again")
