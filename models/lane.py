"""In which order a device works: what is copied there, what is computed, what is recorded and repeated.

`InOrder` does all steps one after the other, on a CPU, which is how they can be tested; a GPU's order is
`models.cuda_lane`'s.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

Work = Callable[[], None]


class Recording(Protocol):
    """Work that can be repeated by calling it, inside of `Lane.computing`, for as long as it is `alive`."""

    @property
    def alive(self) -> bool:
        """False where the lane has given it up: it is to be recorded again."""
        ...

    def __call__(self) -> None:
        """Put it in order once more."""
        ...


class Lane(Protocol):
    """The order of work on one device."""

    device: torch.device
    under_way: int  # batches that runners have begun and not finished; they count, in the thread that judges

    def settle(self) -> None:
        """Wait for what this thread has put onto the device, so that work here may use it."""
        ...

    def place(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Zeros on the device."""
        ...

    def stage(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory of the CPU's that the device copies from and to by itself."""
        ...

    def sending(self) -> AbstractContextManager[None]:
        """In this block copies to the device are put in order, beside what is computed there."""
        ...

    def computing(self) -> AbstractContextManager[None]:
        """In this block work is put in order: behind what was sent, and behind the work of earlier blocks."""
        ...

    def mark(self) -> Work:
        """Inside of `computing`: what waits until everything up to here has been done."""
        ...

    def record(self, work: Work) -> Recording | None:
        """Inside of `computing`: what repeats work that has been done at least once; None where that can never be.

        The work reads and writes tensors from `place`, and keeps no others. Raises torch.OutOfMemoryError.
        """
        ...


class InOrder:
    """Everything at once, one thing after the other."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.under_way = 0

    def settle(self) -> None:
        """Nothing is under way."""

    def place(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Zeros, filled in at once."""
        return torch.zeros(*shape, dtype=dtype, device=self.device)

    stage = place

    def sending(self) -> AbstractContextManager[None]:
        """Nothing needs to be put in order."""
        return nullcontext()

    computing = sending

    def mark(self) -> Work:
        """It has been done."""
        return _nothing

    def record(self, work: Work) -> Recording | None:
        """Doing it again is repeating it."""
        return Again(work)


class Again:
    """Work that is done anew each time."""

    def __init__(self, work: Work) -> None:
        self.alive = True
        self._work = work

    def __call__(self) -> None:
        """As `Recording` says."""
        self._work()


def _nothing() -> None:
    pass
