"""Batch norms folded into convolutions: what the network gives stays, and whether bfloat16 holds its weights."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.artifact import Artifact
from models.backbone import ARCHITECTURES, Architecture, Backbone
from models.folding import fits_bfloat16, fold, folded, normalised

MakeBackbone = Callable[[Architecture], Backbone]
every_architecture = pytest.mark.parametrize("arch", ARCHITECTURES)


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def round_weights(network: Backbone) -> None:
    for conv, _ in normalised(network):
        conv.weight.copy_(conv.weight.bfloat16())


@every_architecture
def test_folding_changes_the_weights_and_not_what_the_network_gives(
    make_backbone: MakeBackbone, arch: Architecture
) -> None:
    network = make_backbone(arch)
    before, after = copy.deepcopy(network), network
    fold(after)
    picture = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for level, peer in zip(after(picture), before(picture), strict=True):
        torch.testing.assert_close(level, peer, rtol=1e-4, atol=1e-4 * float(peer.abs().max()))
    old, new = before.state_dict(), after.state_dict()
    assert {name: tensor.shape for name, tensor in new.items()} == {n: tensor.shape for n, tensor in old.items()}
    assert all(not torch.equal(new[name], old[name]) for name in new if name.endswith("weight"))


@every_architecture
def test_folding_twice_is_folding_once(make_backbone: MakeBackbone, arch: Architecture) -> None:
    network = make_backbone(arch)
    fold(network)
    once = state_of(network)
    fold(network)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, once[name], rtol=1e-6, atol=0, msg=name)


def test_a_folded_convolution_does_what_both_did() -> None:
    conv, norm = nn.Conv2d(6, 8, 3, groups=2), nn.BatchNorm2d(8).eval()  # with a bias, which torchvision's have not
    random = torch.Generator().manual_seed(3)
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert values is not None
        values.data.uniform_(0.2, 3, generator=random)
    x = torch.randn(2, 6, 9, 9, generator=random)
    weight, bias = folded(conv, norm)
    assert weight.dtype == bias.dtype == torch.float32
    torch.testing.assert_close(torch.conv2d(x, weight, bias, groups=2), norm(conv(x)))
    network = nn.Sequential(conv, norm)
    before = network(x)
    fold(network)
    assert conv.bias is not None
    assert not conv.bias.any()
    torch.testing.assert_close(network(x), before)


@every_architecture
def test_bfloat16_holds_a_network_that_was_folded_and_then_rounded(
    make_backbone: MakeBackbone, arch: Architecture
) -> None:
    network = make_backbone(arch)
    assert not fits_bfloat16(network)
    fold(network)
    assert not fits_bfloat16(network)
    round_weights(network)
    assert fits_bfloat16(network)


def test_bfloat16_does_not_hold_a_network_that_was_rounded_and_never_folded(make_backbone: MakeBackbone) -> None:
    network = make_backbone("resnet18")
    round_weights(network)
    assert not fits_bfloat16(network)  # what is multiplied by is its weights times the norms' scales


def test_one_weight_of_more_digits_is_one_too_many(make_backbone: MakeBackbone) -> None:
    network = make_backbone("resnet18")
    fold(network)
    round_weights(network)
    last, _ = normalised(network)[-1]
    last.weight[3, 1, 0, 2] *= 1 + 2**-10
    assert not fits_bfloat16(network)


def test_bfloat16_holds_what_artifacts_hold(artifact: Artifact) -> None:
    assert fits_bfloat16(artifact.detector.backbone)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 4, 1)],
        [nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)],
        [nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)],
    ],
    ids=["no norm", "one norm for two", "a norm before"],
)
def test_a_convolution_without_its_norm_is_refused(layers: list[nn.Module]) -> None:
    with pytest.raises(TypeError, match="without a batch norm behind them"):
        normalised(nn.Sequential(*layers))
