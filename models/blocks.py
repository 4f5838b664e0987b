"""How much is computed at a time where it is too much for once: a CPU's cache is small, a GPU's kernels are costly.

On a CPU a block stays in the cache. On a GPU each is some kernels more, however short, so blocks are as large as its
memory allows.
"""

import torch

_ON_GPU = 2**27  # floats: 512 MB


def floats_at_once(device: torch.device, *, otherwise: int) -> int:
    """Floats of a block on a device; `otherwise` on those that are no GPU."""
    return _ON_GPU if device.type == "cuda" else otherwise
