"""The feature extractor: a torchvision network cut into the levels X1, X2, X3 (seed, step 5.1).

Layers past the third level are neither built nor stored: the whole network exists without memory only, and
what is kept of it is then made real. Parameter names are torchvision's (less a common prefix), so any state
dict of the full network fits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torchvision import models as zoo

Architecture = Literal["wide_resnet50_2", "resnet18", "resnet50", "mobilenet_v2"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)

Levels = tuple[Tensor, Tensor, Tensor]
Grid = tuple[int, int]  # height, width
Grids = tuple[Grid, Grid, Grid]  # the levels'


@dataclass(frozen=True)
class Cut:
    """Where a network is cut: the layers that end the stem and the three levels, and the levels' channels.

    The stem is what works at half the picture's edge, before the first level's grid, and what halves it again.
    """

    build: Callable[..., nn.Module]
    prefix: str
    stem: str
    ends: tuple[str, str, str]
    channels: tuple[int, int, int]


_RESNET_ENDS = ("layer1", "layer2", "layer3")
_CUTS: dict[str, Cut] = {
    "wide_resnet50_2": Cut(zoo.wide_resnet50_2, "", "maxpool", _RESNET_ENDS, (256, 512, 1024)),
    "resnet50": Cut(zoo.resnet50, "", "maxpool", _RESNET_ENDS, (256, 512, 1024)),
    "resnet18": Cut(zoo.resnet18, "", "maxpool", _RESNET_ENDS, (64, 128, 256)),
    "mobilenet_v2": Cut(zoo.mobilenet_v2, "features", "1", ("3", "6", "13"), (24, 32, 96)),
}
_STRIDES = (4, 8, 16)


class Backbone(nn.ModuleDict):
    """The layers of a network up to its third level, run in order.

    Input (b, 3, s, s) float, normalised; output X1 (b, c1, s/4, s/4), X2 (b, c2, s/8, s/8),
    X3 (b, c3, s/16, s/16).
    """

    def __init__(self, layers: dict[str, nn.Module], *, stem: str, ends: tuple[str, str, str]) -> None:
        super().__init__(layers)
        self.stem = stem
        self.ends = ends

    def forward(self, x: Tensor) -> Levels:
        """Run the layers and keep what comes out of the three that end a level."""
        levels = []
        for name, layer in self.items():
            x = layer(x)
            if name in self.ends:
                levels.append(x)
        x1, x2, x3 = levels
        return x1, x2, x3


def channels(arch: Architecture) -> tuple[int, int, int]:
    """Channels (c1, c2, c3) of the three levels."""
    return _CUTS[arch].channels


def grids(image_size: int) -> Grids:
    """((h, w), (h/2, w/2), (h/4, w/4)) of the three levels for a square input."""
    first, second, third = ((image_size // s, image_size // s) for s in _STRIDES)
    return first, second, third


def weight_prefix(arch: Architecture) -> str:
    """What torchvision puts before the names of the layers that are kept ("" or "features.")."""
    prefix = _CUTS[arch].prefix
    return prefix + "." if prefix else ""


def layers_past_the_cut(arch: Architecture) -> frozenset[str]:
    """The layers of torchvision's network that are left out, by the first part of their names, less the prefix."""
    cut = _CUTS[arch]
    network = _outline(cut)
    names = {name for name, _ in (*network.named_children(), *network.get_submodule(cut.prefix).named_children())}
    return frozenset(names - _kept(network, cut).keys() - {cut.prefix})


def build_backbone(arch: Architecture) -> Backbone:
    """A backbone on torch's default device with random weights, which depend on torch's global seed alone."""
    cut = _CUTS[arch]
    backbone = Backbone(_kept(_outline(cut), cut), stem=cut.stem, ends=cut.ends)
    backbone.to_empty(device=torch.get_default_device())
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d):  # none has a bias: a batch norm follows
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
    return backbone


def _outline(cut: Cut) -> nn.Module:
    """The whole network, without memory."""
    with torch.device("meta"):
        return cut.build(weights=None)


def _kept(network: nn.Module, cut: Cut) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {}
    for name, layer in network.get_submodule(cut.prefix).named_children():
        layers[name] = layer
        if name == cut.ends[-1]:
            break
    return layers
