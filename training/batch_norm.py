"""The statistics of batch norm: kept, or estimated anew from good tiles."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.backbone import Backbone
from models.preprocess import Preprocess, PreprocessConfig
from models.tiling import cut


def freeze_batch_norm(module: nn.Module) -> None:
    """Put every batch norm below `module` into eval mode: its statistics are used and not changed."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()


@torch.no_grad()
def estimate_batch_norm(backbone: Backbone, batches: Iterable[Tensor], preprocess: PreprocessConfig) -> None:
    """Set the statistics of every batch norm to cumulative averages over pictures (b, 3, S, S) uint8, in place.

    For a network without statistics worth keeping: random weights, or weights learnt on shuffled tiles.
    Without this, the signal of a random network dies out (or blows up) on its way through the layers.
    """
    norms = [layer for layer in backbone.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    normalise = Preprocess(preprocess)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's sign for a cumulative average
        norm.train()
    for batch in batches:
        backbone(normalise(cut(batch, preprocess.tiles)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
