"""Compiling all loops ahead of the first picture."""

from functools import cache

import torch

from models.loops.centred import centred
from models.loops.compiled import warm_up
from models.loops.largest import largest
from models.loops.one_pass import distances, interleaved


@cache
def ready_for(dtype: torch.dtype) -> bool:
    """Compile what scores features of that type, float32 or bfloat16, unless it has been; False where it cannot be."""
    return warm_up(lambda: _call_all(dtype))


def _call_all(dtype: torch.dtype) -> None:
    for levels in (dtype, torch.float32):  # what a fusion gives is float32
        centred([torch.zeros(1, 1, 1, 1, dtype=levels)] * 3, [torch.zeros(1, 1, 1)] * 3, kernel=1)
    if dtype == torch.bfloat16:
        largest(torch.zeros(1, 1, 1, 1, dtype=dtype), kernel=1, stride=1, padding=0)
    parts = [torch.zeros(1, edge, edge, 1, dtype=dtype) for edge in (4, 2, 1)]
    nothing = interleaved(torch.zeros(16, 1, 1, dtype=torch.int8), torch.zeros(16, 1))
    distances(parts, *nothing, shrinkage=1.0)
