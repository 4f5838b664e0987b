"""Batch norms folded into the convolutions before them, for a network that is no longer trained.

What is left of a batch norm is its shift: the state dict keeps its names, and fits any network as before. A convolution
then has the very weights that a fused kernel multiplies by, so that one rounding of them, before anything is fitted to
the network, holds for every way to run it.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn


def normalised(network: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Each convolution of a torchvision network and the batch norm behind it, in order.

    Raises TypeError for a network that has one without the other.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    pairs = [pair for pair in pairwise(layers) if isinstance(pair[0], nn.Conv2d)]
    found = [(conv, norm) for conv, norm in pairs if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)]
    if 2 * len(found) != len(layers):
        raise TypeError(f"{type(network).__name__} has convolutions without a batch norm behind them")
    return found


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight (c', c/g, k, k) and bias (c',), float32, of one convolution that does what both do in eval mode.

    Raises ValueError where that is no number.
    """
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None, "torchvision's networks track statistics"
    assert variance is not None, "torchvision's networks track statistics"
    scale = norm.weight.detach().double() / (variance.double() + norm.eps).sqrt()
    shift = norm.bias.detach().double() - mean.double() * scale
    if conv.bias is not None:
        shift = shift + conv.bias.detach().double() * scale
    weight = (conv.weight.detach().double() * scale.view(-1, 1, 1, 1)).float()
    if not (weight.isfinite().all() and shift.isfinite().all()):
        raise ValueError("a batch norm's variance is negative, or so small that its scale is no number")
    return weight, shift.float()


@torch.no_grad()
def fold(network: nn.Module) -> None:
    """Move the scales of all batch norms into the convolutions, in place; what the network gives stays the same."""
    for conv, norm in normalised(network):
        weight, bias = folded(conv, norm)
        conv.weight.copy_(weight)
        if conv.bias is not None:
            conv.bias.zero_()
        norm.reset_running_stats()  # mean 0, variance 1
        norm.weight.fill_((1 + norm.eps) ** 0.5)
        norm.bias.copy_(bias)


def fits_bfloat16(network: nn.Module) -> bool:
    """Whether bfloat16 has every weight, so that only what flows through the network is rounded."""
    return all(
        torch.allclose(weight.bfloat16().float(), weight, rtol=1e-5, atol=0)
        for weight, _ in (folded(conv, norm) for conv, norm in normalised(network))
    )
