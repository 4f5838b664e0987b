"""The fused backbone against the one that it was made from."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from models import fused_backbone
from models.backbone import ARCHITECTURES, Architecture, Backbone, Levels, channels
from models.folding import fold, normalised
from models.fused_backbone import Convolution, FusedBackbone

MakeBackbone = Callable[[Architecture], Backbone]
CPU = torch.device("cpu")
every_architecture = pytest.mark.parametrize("arch", ARCHITECTURES)
every_way = pytest.mark.parametrize("way", ["oneDNN", "torch's own layers"])


def pictures(b: int = 2) -> Tensor:
    return torch.randn(b, 3, 64, 64, generator=torch.Generator().manual_seed(b))


def fused(network: Backbone, dtype: torch.dtype = torch.float32) -> FusedBackbone:
    return FusedBackbone(network, edge=64, dtype=dtype, device=CPU).eval()


def apart(levels: Levels, peers: Levels) -> float:
    """The largest difference of a level to its peer, relative to the peer's largest value."""
    pairs = zip(levels, peers, strict=True)
    return max(float((level - peer).abs().max() / peer.abs().max()) for level, peer in pairs)


@pytest.fixture
def own_layers(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is asked for, torch as if it had been built without oneDNN."""
    if way != "oneDNN":
        monkeypatch.setattr(fused_backbone, "_onednn", lambda: None)
    elif fused_backbone._onednn() is None:
        pytest.skip("this torch was built without oneDNN")


@pytest.mark.usefixtures("own_layers")
@every_way
@every_architecture
def test_in_float32_it_gives_what_the_backbone_gives(make_backbone: MakeBackbone, arch: Architecture, way: str) -> None:
    network, x = make_backbone(arch), pictures()
    with torch.inference_mode():
        levels, peers = fused(network)(x), network(x)
    assert apart(levels, peers) < 1e-4
    assert tuple(level.shape[1] for level in levels) == channels(arch)
    for level, peer in zip(levels, peers, strict=True):
        assert level.shape == peer.shape
        assert level.dtype == torch.float32
        assert level.is_contiguous(memory_format=torch.channels_last)
        assert peer.std() > 0


@pytest.mark.usefixtures("own_layers")
@every_way
@every_architecture
def test_in_bfloat16_it_gives_nearly_that(make_backbone: MakeBackbone, arch: Architecture, way: str) -> None:
    network, x = make_backbone(arch), pictures()
    fold(network)
    for conv, _ in normalised(network):
        conv.weight.copy_(conv.weight.bfloat16())
    with torch.inference_mode():
        levels, peers = fused(network, torch.bfloat16)(x), network(x)
    for level, peer in zip(levels, peers, strict=True):
        assert level.dtype == torch.bfloat16
        assert 1e-4 < float((level - peer).norm() / peer.norm()) < 0.03  # it was in bfloat16, and that is near


@every_architecture
def test_in_bfloat16_the_stem_stays_exact(make_backbone: MakeBackbone, arch: Architecture) -> None:
    network, x = make_backbone(arch), pictures().contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        exact, half = (fused(network, dtype).stem(x) for dtype in (torch.float32, torch.bfloat16))
    assert torch.equal(exact, half)
    assert exact.shape[-1] == (32 if arch == "mobilenet_v2" else 16)
    assert half.dtype == torch.float32


def test_torch_s_own_layers_give_what_onednn_s_give(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = make_backbone("mobilenet_v2"), pictures()
    first = fused(network)
    monkeypatch.setattr(fused_backbone, "_onednn", lambda: None)
    second = fused(network)
    assert not any(layer.packed for layer in second.modules() if isinstance(layer, Convolution))
    monkeypatch.undo()
    with torch.inference_mode():
        assert apart(first(x), second(x)) < 1e-5


def test_the_backbone_stays_as_it_is_and_is_not_held(make_backbone: MakeBackbone) -> None:
    network, x = make_backbone("resnet18"), pictures()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.inference_mode():
        made = fused(network)
        first = [level.clone() for level in made(x)]
        for parameter in network.parameters():
            parameter.zero_()
        assert all(torch.equal(a, b) for a, b in zip(made(x), first, strict=True))
    network.load_state_dict(before)
    assert not list(made.parameters())
    assert not made.state_dict()  # there is nothing to store or to load: it is made from a backbone


def test_pictures_of_a_batch_do_not_mix_and_the_batch_may_change(make_backbone: MakeBackbone) -> None:
    made, x = fused(make_backbone("resnet18")), pictures(5)
    with torch.inference_mode():
        together = made(x)
        for n in range(5):
            alone = made(x[n : n + 1])
            assert apart(alone, (together[0][n : n + 1], together[1][n : n + 1], together[2][n : n + 1])) < 1e-5


@contextmanager
def one_thread() -> Iterator[None]:
    """How weights are wanted depends on it: with four, six of mobilenet_v2's are laid out anew for several pictures."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("exact_input", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_architecture
def test_weights_lie_as_they_are_wanted_for_any_number_of_pictures(
    make_backbone: MakeBackbone,
    arch: Architecture,
    dtype: torch.dtype,
    capfd: pytest.CaptureFixture[str],
    *,
    exact_input: bool,
) -> None:
    if fused_backbone._onednn() is None or torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("what oneDNN wants elsewhere was not looked into")
    with one_thread():
        made = FusedBackbone(make_backbone(arch), edge=96, dtype=dtype, device=CPU, exact_input=exact_input)
    for b in (1, 5):
        x = torch.randn(b, 3, 96, 96)
        with one_thread(), torch.inference_mode(), torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            made(x)
        done = [line.split(",") for line in capfd.readouterr().out.splitlines() if ",primitive,exec," in line]
        kinds = [fields[5] for fields in done]
        assert "convolution" in kinds
        assert "reorder" not in kinds


def test_pictures_of_another_size_are_right_too(make_backbone: MakeBackbone) -> None:
    network, x = make_backbone("resnet18"), torch.randn(2, 3, 96, 128)
    with torch.inference_mode():
        assert apart(fused(network)(x), network(x)) < 1e-4


@pytest.mark.parametrize("exact_input", [False, True])
@pytest.mark.parametrize("value", [torch.nan, -torch.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_what_is_not_a_number_stays_so_on_every_level(
    make_backbone: MakeBackbone, arch: Architecture, dtype: torch.dtype, value: float, *, exact_input: bool
) -> None:
    backbone = make_backbone(arch)
    fused = FusedBackbone(backbone, edge=64, dtype=dtype, device=torch.device("cpu"), exact_input=exact_input)
    images = torch.randn(2, 3, 64, 64)
    images[1, 0, 30, 30] = value
    with torch.inference_mode():
        for level in fused(images):
            assert level[0].isfinite().all()
            assert level[1].isnan().any()


class _Layers(nn.ModuleDict):
    """A stem and three levels of a layer each."""

    stem, ends = "0", ("1", "2", "3")


def test_a_variance_that_is_negative_is_refused(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone("resnet18")
    next(layer for layer in backbone.modules() if isinstance(layer, nn.BatchNorm2d)).running_var[0] = -2
    with pytest.raises(ValueError, match="negative"):
        FusedBackbone(backbone, edge=64, dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (nn.AvgPool2d(2), "how to fuse a AvgPool2d"),
        (nn.MaxPool2d(2, dilation=2), "how to fuse a MaxPool2d"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GELU()), "how to fuse a GELU"),
        (nn.Conv2d(3, 4, 1), "a convolution without a batch norm behind it"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), "a convolution without a batch norm behind it"),
        (nn.ReLU(), "ReLU without a convolution before it"),
        (nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(3)), "BatchNorm2d without a convolution before it"),
    ],
    ids=["pooling", "dilated pooling", "activation", "bare convolution", "no norm", "no convolution", "norm alone"],
)
def test_layers_that_are_not_known_are_refused(layer: nn.Module, says: str) -> None:
    network = _Layers({"0": nn.MaxPool2d(2), "1": nn.Sequential(layer), "2": nn.MaxPool2d(2), "3": nn.MaxPool2d(2)})
    with pytest.raises(TypeError, match=says):
        FusedBackbone(network, edge=64, dtype=torch.float32, device=CPU)  # type: ignore[arg-type]
