"""Which device to compute on, the one place where `auto` is resolved, and how exactly it computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from models.errors import DeviceError

Device = Literal["auto", "cpu", "cuda"]


def pick_device(wished: Device) -> torch.device:
    """CUDA if there is one under `auto`. Raises DeviceError if CUDA is asked for and there is none."""
    present = torch.cuda.is_available()
    if wished == "cuda" and not present:
        raise DeviceError("torch finds no CUDA device here. Look at nvidia-smi, or use --device auto or cpu.")
    return torch.device("cuda" if present and wished != "cpu" else "cpu")


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolve in float32 proper, and leave torch's setting as it was.

    On CUDA torch convolves in TensorFloat-32 by default (it multiplies matrices exactly), three digits instead of
    seven: a part near its threshold would pass on one machine and fail on another. The setting is the process's,
    so let one thread compute.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
