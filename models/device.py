"""Which device to compute on: the one place where `auto` is resolved."""

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
