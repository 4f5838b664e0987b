"""Half precision where an artifact is large: the backbone's convolutions are stored in float16.

Biases and batch norms stay in float32. A detector is rounded before its scorer is fitted, so that the detector that
was fitted and calibrated is, bit for bit, the one that is loaded. Scorers choose the types of their own buffers.
"""

import torch
from torch import Tensor, nn

_HALVED = "backbone."


def stored_dtype(name: str, tensor: Tensor) -> torch.dtype:
    """The type that tensor `name` of a detector's state has in an artifact."""
    if name.startswith(_HALVED) and tensor.dtype == torch.float32 and tensor.ndim > 1:
        return torch.float16
    return tensor.dtype


def round_to_stored(detector: nn.Module) -> None:
    """Round a detector's weights, in place, to values that an artifact can hold."""
    for name, tensor in detector.state_dict().items():
        dtype = stored_dtype(name, tensor)
        if dtype != tensor.dtype:
            tensor.copy_(tensor.to(dtype))
