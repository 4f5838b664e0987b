"""bfloat16 for training on CPUs that compute in it: matrix products and convolutions, in float32 all else.

Weights, gradients and Adam's averages stay float32. CPUs without it would only emulate it, and stay with float32.
(On CUDA `training.loop` asks Fabric for the same.)
"""

from contextlib import AbstractContextManager

import torch

from models.precision import cpu_has_bfloat16


def bfloat16_on_cpu() -> AbstractContextManager[None]:
    """What is computed on the CPU within this context is computed in bfloat16, if the CPU has it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16())
