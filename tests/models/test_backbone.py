"""The four networks, cut into three levels and no further."""

from functools import cache
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import models as zoo

from models.backbone import (
    ARCHITECTURES,
    Architecture,
    Backbone,
    build_backbone,
    channels,
    grids,
    layers_past_the_cut,
    weight_prefix,
)

ENDS = {"mobilenet_v2": ("features.3", "features.6", "features.13")}
CHANNELS = {
    "wide_resnet50_2": (256, 512, 1024),
    "resnet50": (256, 512, 1024),
    "resnet18": (64, 128, 256),
    "mobilenet_v2": (24, 32, 96),
}

every_architecture = pytest.mark.parametrize("arch", get_args(Architecture))


@cache
def network(arch: Architecture) -> nn.Module:
    """Torchvision's own, in full, with random weights and random batch norm statistics."""
    torch.manual_seed(3)
    full: nn.Module = getattr(zoo, arch)(weights=None).eval()
    for name, buffer in full.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return full


@cache
def backbone(arch: Architecture) -> Backbone:
    return build_backbone(arch).eval()


def kept(full: nn.Module, arch: Architecture) -> dict[str, Tensor]:
    wanted = backbone(arch).state_dict()
    named = {name.removeprefix(weight_prefix(arch)): tensor for name, tensor in full.state_dict().items()}
    return {name: named[name] for name in wanted}


def test_the_source_s_network_is_among_them() -> None:
    assert ARCHITECTURES[0] == "wide_resnet50_2"
    assert set(ARCHITECTURES) == set(CHANNELS)


@every_architecture
def test_levels_have_the_promised_shapes(arch: Architecture) -> None:
    network = backbone(arch)
    with torch.inference_mode():
        levels = network(torch.zeros(2, 3, 64, 64))
    assert channels(arch) == CHANNELS[arch]
    assert grids(64) == ((16, 16), (8, 8), (4, 4))
    wanted = [(2, c, *grid) for c, grid in zip(channels(arch), grids(64), strict=True)]
    assert [tuple(level.shape) for level in levels] == wanted


def test_the_grids_at_224_pixels_are_the_methods() -> None:
    assert grids(224) == ((56, 56), (28, 28), (14, 14))


@every_architecture
def test_levels_are_those_of_torchvisions_network(arch: Architecture) -> None:
    full = network(arch)
    backbone(arch).load_state_dict(kept(full, arch))
    seen: list[Tensor] = []
    hooks = [
        full.get_submodule(end).register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
        for end in ENDS.get(arch, ("layer1", "layer2", "layer3"))
    ]
    picture = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        full(picture)
        levels = backbone(arch)(picture)
    for hook in hooks:
        hook.remove()
    assert len(seen) == 3
    for level, peer in zip(levels, seen, strict=True):
        assert level.std() > 0
        assert torch.equal(level, peer)


@every_architecture
def test_layers_past_the_third_level_are_not_there(arch: Architecture) -> None:
    layers = list(dict(backbone(arch).named_children()))
    if arch == "mobilenet_v2":
        assert layers == [str(n) for n in range(14)]
    else:
        assert layers == ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"]
    assert {name.split(".")[0] for name in backbone(arch).state_dict()} <= set(layers)


@every_architecture
def test_state_names_and_shapes_are_torchvisions(arch: Architecture) -> None:
    theirs = {name: tensor.shape for name, tensor in network(arch).state_dict().items()}
    for name, tensor in backbone(arch).state_dict().items():
        assert theirs[weight_prefix(arch) + name] == tensor.shape


@every_architecture
def test_a_backbone_without_memory_has_the_same_state(arch: Architecture) -> None:
    with torch.device("meta"):
        shapes = build_backbone(arch).state_dict()
    assert all(tensor.is_meta for tensor in shapes.values())
    real = backbone(arch).state_dict()
    assert {n: (t.shape, t.dtype) for n, t in shapes.items()} == {n: (t.shape, t.dtype) for n, t in real.items()}


@every_architecture
def test_what_is_kept_and_what_is_past_the_cut_make_up_the_network(arch: Architecture) -> None:
    past = layers_past_the_cut(arch)
    kept_layers = {name for name, _ in backbone(arch).named_children()}
    assert not past & kept_layers
    first = {name.removeprefix(weight_prefix(arch)).split(".")[0] for name in network(arch).state_dict()}
    assert first <= past | kept_layers
    assert past == (
        {"14", "15", "16", "17", "18", "classifier"} if arch == "mobilenet_v2" else {"layer4", "avgpool", "fc"}
    )


@every_architecture
def test_layers_past_the_third_level_are_never_given_memory(arch: Architecture) -> None:
    taken: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            if func.overloadpacket is torch.ops.aten.empty_like and not out.is_meta:
                taken.append(out.numel())
            return out

    with Watch():
        built = build_backbone(arch)
    assert sum(taken) == sum(tensor.numel() for tensor in built.state_dict().values())


@every_architecture
def test_random_weights_are_spread_as_torchvisions(arch: Architecture) -> None:
    torch.manual_seed(5)
    fresh: nn.Module = getattr(zoo, arch)(weights=None)
    theirs = {name.removeprefix(weight_prefix(arch)): tensor for name, tensor in fresh.state_dict().items()}
    for name, tensor in build_backbone(arch).state_dict().items():
        if tensor.ndim == 4:
            assert tensor.mean().item() == pytest.approx(0, abs=6 * theirs[name].std().item() / tensor.numel() ** 0.5)
            assert tensor.std().item() == pytest.approx(theirs[name].std().item(), rel=6 / tensor.numel() ** 0.5)
        else:
            assert torch.equal(tensor, theirs[name]), name


def test_random_weights_depend_on_torchs_seed_alone() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_backbone("mobilenet_v2").state_dict()["0.0.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
