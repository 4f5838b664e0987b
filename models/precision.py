"""In which precision a detector computes, and in which its weights are stored.

Half precision is bfloat16 where the device has it: float32's range with 8 bits. Rounding activations to it moves scores
by about a percent; rounding the weights of a detector that is fitted would move them by a tenth (docs/log.md). So
weights are rounded once, before anything is fitted to what they give (`models.folding`): the detector that was fitted
and calibrated is, weight for weight, the one that runs in float32, in bfloat16 and on any device.
"""

from functools import cache
from typing import Literal, assert_never

import torch
from torch import Tensor, nn

from models.errors import DeviceError
from models.folding import fold

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Computed = Literal["float32", "bfloat16", "float16"]

_HALVED = "backbone."
_NAMES: dict[torch.dtype, Computed] = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


def stored_dtype(name: str, tensor: Tensor) -> torch.dtype:
    """The type that tensor `name` of a detector's state has in an artifact: float16 for the convolutions' weights.

    It holds every bfloat16 of a weight's usual size. Older artifacts use all of its digits.
    """
    if name.startswith(_HALVED) and tensor.dtype == torch.float32 and tensor.ndim > 1:
        return torch.float16
    return tensor.dtype


def round_to_stored(detector: nn.Module) -> None:
    """Round the weights and biases of a detector's backbone, in place, to values that an artifact and bfloat16 hold.

    Its batch norms are folded first: what is rounded must be what is multiplied by.
    """
    fold(detector.get_submodule(_HALVED.rstrip(".")))
    for name, tensor in detector.state_dict().items():
        if name.startswith(_HALVED) and (tensor.ndim > 1 or name.endswith(".bias")):
            tensor.copy_(tensor.bfloat16().to(stored_dtype(name, tensor)))


def pick_precision(wished: Precision, device: torch.device) -> torch.dtype:
    """What `device` computes in under `wished`; under `auto` half precision where it is native, else float32.

    Raises DeviceError for float16 on a CPU, and for bfloat16 where there is none.
    """
    match wished:
        case "auto":
            return _best(device)
        case "float32":
            return torch.float32
        case "bfloat16":
            if not _can_bfloat16(device):
                raise DeviceError(f"The {device.type} cannot compute in bfloat16. Use --precision auto.")
            return torch.bfloat16
        case "float16":
            if device.type == "cpu":
                raise DeviceError("float16 is for CUDA: a CPU would emulate it. Use --precision auto.")
            return torch.float16
        case _:
            assert_never(wished)


def name_of(dtype: torch.dtype) -> Computed:
    """What people call one of the types that detectors compute in."""
    return _NAMES[dtype]


def _best(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        generation = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if generation >= (8, 0) else torch.float16 if generation >= (7, 0) else torch.float32
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def _can_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 at all, if need be by emulating it."""
    if device.type == "cuda":
        return not torch.cuda.is_available() or torch.cuda.get_device_capability(device) >= (8, 0)
    return not torch.backends.mkldnn.is_available() or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 by itself; emulated, it is slower than float32."""
    # torch has no public question for it that is as old as the torch that we support.
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    asked = (getattr(torch.cpu, question, None) for question in questions)
    return any(question() for question in asked if question is not None)
