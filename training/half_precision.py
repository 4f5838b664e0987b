"""bfloat16 for training on CPUs that compute in it: matrix products and convolutions, in float32 all else.

Weights, gradients and Adam's averages stay float32. CPUs without it would only emulate it, and stay with float32.
(On CUDA `training.loop` asks Fabric for the same.)
"""

from contextlib import AbstractContextManager
from functools import cache

import torch


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU has instructions for it: AVX-512's or AMX."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def bfloat16_on_cpu() -> AbstractContextManager[None]:
    """What is computed on the CPU within this context is computed in bfloat16, if the CPU has it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16())
