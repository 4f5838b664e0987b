"""Normalisation in whole numbers: of grey levels less a whole one, over a power of two, bfloat16 loses nothing.

With ImageNet's mean and deviation a normalised pixel has more digits than bfloat16 has, and rounding those moves scores
(docs/log.md), so that the first convolution would have to be computed in float32. Its weights can make up for another
normalisation.
"""

import math

import torch

from models.backbone import Backbone
from models.folding import normalised
from models.preprocess import PreprocessConfig

_GREYS = 255


def in_whole_numbers(config: PreprocessConfig) -> PreprocessConfig:
    """The same but for a mean of whole grey levels, and deviations that are powers of two of them, the nearest each.

    Where a mean is no grey level, or a deviation far from any, all stay what they are.
    """
    mean = tuple(round(_GREYS * each) / _GREYS for each in config.mean)
    std = tuple(2.0 ** round(math.log2(_GREYS * each)) / _GREYS for each in config.std)
    whole = config.model_copy(update={"mean": mean, "std": std})
    return whole if whole.model_copy(update={"align": None}).eight_digits else config


@torch.no_grad()
def renormalise(backbone: Backbone, before: PreprocessConfig, after: PreprocessConfig) -> None:
    """Make a backbone, in place, give what it gave, of pictures that are normalised as `after` says.

    But for what sees beyond the border: there the mean goes on, which is another by half a grey level at most.
    """
    conv, norm = normalised(backbone)[0]
    old_mean, new_mean, old_std, new_std = (
        torch.tensor(each, dtype=torch.float64).view(-1, 1, 1)
        for each in (before.mean, after.mean, before.std, after.std)
    )
    weight, running_mean = conv.weight.double(), norm.running_mean
    assert running_mean is not None, "torchvision's networks track statistics"
    running_mean -= (weight * (new_mean - old_mean) / old_std).sum((1, 2, 3))
    conv.weight.copy_(weight * new_std / old_std)
