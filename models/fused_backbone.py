"""A backbone that is made to run and no longer to be trained: convolutions with what follows them in one kernel.

Batch norm is folded in; bias, residual sum and ReLU are done while a convolution's output is still in the processor's
cache. On CPUs the weights lie as oneDNN wants them, once and not at every call: that is what torch.compile's freezing
comes to as well, without a compiler on the line's machine (benchmarks/runtimes.py compares). How it wants them depends
on how large the picture is, not on how many there are. Elsewhere the same is written with torch's own layers.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

from models.backbone import Backbone, Levels
from models.folding import folded
from models.loops.largest import largest
from models.loops.ready import ready_for

_Size = list[int]
# oneDNN's ReLU makes 0 of what is not a number, and a fault would be judged. Its leaky one, with a slope that leaves
# nothing, does not.
_LEAKY, _SLOPE = "leaky_relu", [1e-30]


class Convolution(nn.Module):
    """Convolution, bias, a residual if one is given, then `activation`: None, nn.ReLU or nn.ReLU6.

    `weight` (c', c/g, k, k), in a layout of its own on CPUs, and `bias` (c',). Inputs of another `edge` than it was
    made for are right too, but weights are then laid out anew at each call, which can take longer than all else.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d,
        activation: type[nn.Module] | None,
        *,
        edge: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        weight, bias = folded(conv, norm)
        self.geometry: tuple[_Size, _Size, _Size, int] = (
            list(conv.stride),
            [int(edge) for edge in conv.padding],
            list(conv.dilation),
            conv.groups,
        )
        self.activation = activation
        self.packed = device.type == "cpu" and _onednn() is not None
        placed = weight.to(device, dtype).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", self._pack(placed, edge) if self.packed else placed, persistent=False)
        self.register_buffer("bias", bias.to(device, dtype), persistent=False)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(b, c, h, w) channels last -> (b, c', h', w'); `residual` has the output's shape."""
        if self.packed:
            return self._fused(x, residual)
        stride, padding, dilation, groups = self.geometry
        y = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
        if residual is not None:
            y += residual
        return self._activated(y)

    def _fused(self, x: Tensor, residual: Tensor | None) -> Tensor:
        stride, padding, dilation, groups = self.geometry
        onednn: Any = _onednn()
        y: Tensor
        if residual is not None:  # with a sum oneDNN knows no leaky one
            y = onednn.binary(
                x, residual, self.weight, self.bias, padding, stride, dilation, groups, "add", 1.0, None, [], ""
            )
            return y if self.activation is None else self._activated(y)
        name, scalars = ("none", []) if self.activation is None else (_LEAKY, _SLOPE)
        y = onednn(x, self.weight, self.bias, padding, stride, dilation, groups, name, scalars, "")
        return y.clamp_max_(6) if self.activation is nn.ReLU6 else y

    def _activated(self, y: Tensor) -> Tensor:
        if self.activation is nn.ReLU:
            return F.relu_(y)
        return F.relu6(y, inplace=True) if self.activation is nn.ReLU6 else y

    def _pack(self, weight: Tensor, edge: int) -> Tensor:
        stride, padding, dilation, groups = self.geometry
        size = [1, weight.shape[1] * groups, edge, edge]
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups, size)
        return packed


class Largest(nn.Module):
    """Max pooling of bfloat16 by a compiled loop."""

    def __init__(self, pooling: nn.MaxPool2d) -> None:
        super().__init__()
        self.sizes = _sizes(pooling)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h', w'), channels last."""
        kernel, stride, padding = self.sizes
        return largest(x, kernel=kernel, stride=stride, padding=padding)


class _Residual(nn.Module):
    """Convolutions in a row, and a shortcut around them that the last one adds to its output."""

    def __init__(self, convolutions: Sequence[nn.Module], shortcut: nn.Module | None) -> None:
        super().__init__()
        self.first = nn.Sequential(*convolutions[:-1])
        self.last = convolutions[-1]
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.first(x), x if self.shortcut is None else self.shortcut(x))
        return y


class FusedBackbone(nn.Module):
    """What a `Backbone` gives, faster. It is fixed: on its device, in its type, without parameters.

    Input (b, 3, s, s), normalised, float32 or `stem_dtype`; output X1, X2, X3 as the backbone's in its type, channels
    last. `edge` is the s that it is fast for. Under bfloat16 the stem stays in float32 on CPUs, since nearly all that
    rounding does to scores begins there (docs/log.md), unless nothing is rounded there: a single convolution of input
    that is `exact_input` in bfloat16, followed by pooling that chooses.
    """

    def __init__(
        self, backbone: Backbone, *, edge: int, dtype: torch.dtype, device: torch.device, exact_input: bool = False
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.stem_dtype = stem_dtype(backbone, dtype, device, exact_input=exact_input)
        fuse = _Fusing(edge, self.stem_dtype, device)
        self.levels = nn.ModuleList()
        layers: list[nn.Module] = []
        for name, layer in backbone.items():
            layers.append(layer)
            if name == backbone.stem:
                self.stem = nn.Sequential(*fuse.row(layers))
                fuse, layers = _Fusing(fuse.edge, dtype, device), []
            elif name in backbone.ends:
                self.levels.append(nn.Sequential(*fuse.row(layers)))
                layers = []

    def forward(self, x: Tensor) -> Levels:
        """Run the stem and the levels one after the other."""
        x = x.to(self.stem_dtype, memory_format=torch.channels_last)
        x = self.stem(x).to(self.dtype)
        first, second, third = self.levels
        x1 = first(x)
        x2 = second(x1)
        return x1, x2, third(x2)


def stem_dtype(backbone: Backbone, dtype: torch.dtype, device: torch.device, *, exact_input: bool) -> torch.dtype:
    """What a `FusedBackbone` of these computes its stem in."""
    if dtype != torch.bfloat16 or device.type != "cpu":
        return dtype
    names = list(backbone)
    layers = [backbone[name] for name in names[: names.index(backbone.stem) + 1]]
    convolutions = sum(isinstance(module, nn.Conv2d) for layer in layers for module in layer.modules())
    return dtype if exact_input and convolutions == 1 else torch.float32


class _Fusing:
    """Turns torchvision's layers into fused ones, in the order in which pictures of an edge pass through them."""

    def __init__(self, edge: int, dtype: torch.dtype, device: torch.device) -> None:
        self.edge = edge  # of what comes out of the last layer so far
        self.dtype = dtype
        self._device = device

    def row(self, layers: Sequence[nn.Module]) -> list[nn.Module]:
        """Layers one after the other. Raises TypeError for one that is not known."""
        flat = _flat(layers)
        found: list[nn.Module] = []
        for index, layer in enumerate(flat):
            match layer:
                case nn.Conv2d():
                    found.append(self._convolution(flat, index))
                case nn.BatchNorm2d() | nn.ReLU() | nn.ReLU6():
                    if not found or not isinstance(found[-1], Convolution):
                        raise TypeError(f"{type(layer).__name__} without a convolution before it")
                case BasicBlock() | Bottleneck():
                    found.append(self._resnet_block(layer))
                case InvertedResidual():
                    inner = self.row([layer.conv])
                    found.append(_Residual(inner, None) if layer.use_res_connect else nn.Sequential(*inner))
                case nn.MaxPool2d(dilation=1, ceil_mode=False, return_indices=False):
                    looped = (self._device.type, self.dtype) == ("cpu", torch.bfloat16) and ready_for(self.dtype)
                    found.append(Largest(layer) if looped else layer)
                    self.edge = _edge_after(layer, self.edge)
                case _:
                    raise TypeError(f"it is not known how to fuse a {type(layer).__name__}")
        return found

    def _convolution(self, row: Sequence[nn.Module], index: int) -> Convolution:
        conv, norm, after = (*row[index : index + 3], None, None)[:3]
        if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            raise TypeError("a convolution without a batch norm behind it")
        activation = type(after) if isinstance(after, nn.ReLU | nn.ReLU6) else None
        made = Convolution(conv, norm, activation, edge=self.edge, dtype=self.dtype, device=self._device)
        self.edge = _edge_after(conv, self.edge)
        return made

    def _resnet_block(self, block: BasicBlock | Bottleneck) -> nn.Module:
        row: list[nn.Module] = []
        for number in range(1, 4 if isinstance(block, Bottleneck) else 3):
            row += [getattr(block, f"conv{number}"), getattr(block, f"bn{number}"), block.relu]
        before = self.edge
        inner = self.row(row)
        if block.downsample is None:
            return _Residual(inner, None)
        self.edge = before
        return _Residual(inner, nn.Sequential(*self.row([block.downsample])))


def _sizes(layer: nn.Conv2d | nn.MaxPool2d) -> tuple[int, int, int]:
    """Kernel, stride and padding of a square one."""
    kernel, stride, padding = (
        each[0] if isinstance(each, tuple) else int(each) for each in (layer.kernel_size, layer.stride, layer.padding)
    )
    return kernel, stride, padding


def _edge_after(layer: nn.Conv2d | nn.MaxPool2d, edge: int) -> int:
    """The edge of what a layer without dilation makes of a square of `edge`, as torchvision's are."""
    kernel, stride, padding = _sizes(layer)
    return (edge + 2 * padding - kernel) // stride + 1


def _flat(layers: Sequence[nn.Module]) -> list[nn.Module]:
    """The layers in sequences, nested ones too, in one row."""
    flat: list[nn.Module] = []
    for layer in layers:
        flat += _flat(list(layer)) if isinstance(layer, nn.Sequential) else [layer]
    return flat


def _onednn() -> Any | None:
    """The operator of torch that the fused kernels come from; None where torch was built without oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
