"""What tells a detector that cannot be recorded from a device that is in disorder, and when garbage is collected."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from models.capture import WorkFailedError, capture
from models.memory_shortage import short_of_memory


@contextmanager
def recorder(*, fails_at_end: bool = False) -> Iterator[None]:
    try:
        yield
    finally:
        if fails_at_end:
            raise RuntimeError("operation failed due to a previous error during capture")


def fail() -> None:
    raise torch.OutOfMemoryError("as a device would")


def test_the_works_own_error_tells_that_the_recording_ended() -> None:
    with pytest.raises(WorkFailedError) as raised:
        capture(recorder(), fail)
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)
    assert short_of_memory(raised.value)


def test_another_error_in_its_place_does_not() -> None:
    with pytest.raises(RuntimeError, match="previous error") as raised:
        capture(recorder(fails_at_end=True), fail)
    assert short_of_memory(raised.value), "that is why"


@pytest.mark.parametrize("before", [True, False])
def test_nothing_is_collected_meanwhile(*, before: bool) -> None:
    enabled = gc.isenabled()
    seen: list[bool] = []
    (gc.enable if before else gc.disable)()
    try:
        capture(recorder(), lambda: seen.append(gc.isenabled()))
        with pytest.raises(WorkFailedError):
            capture(recorder(), fail)
        assert (seen, gc.isenabled()) == ([False], before)
    finally:
        (gc.enable if enabled else gc.disable)()


@pytest.mark.parametrize(
    ("words", "short"),
    [
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_what_says_that_memory_is_short(words: str, *, short: bool) -> None:
    assert short_of_memory(RuntimeError(words)) == short
