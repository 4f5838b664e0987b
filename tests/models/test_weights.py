"""Backbone weights from every source, and every way in which they can fail to fit."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision import models as zoo

from models.artifact import Artifact, save
from models.backbone import Architecture, Backbone, build_backbone
from models.detector import build_detector
from models.errors import WeightsError
from models.precision import round_to_stored
from models.preprocess import Preprocess, PreprocessConfig
from models.weights import fingerprint, load_weights
from models.whole_numbers import in_whole_numbers

State = dict[str, Tensor]
SHARED = Path(os.environ.get("JIGSIGHT_SHARED", Path(__file__).parents[3] / "shared"))


@pytest.fixture(scope="module")
def resnet18() -> State:
    """Torchvision's full state dict."""
    torch.manual_seed(7)
    return dict(zoo.resnet18(weights=None).state_dict())


@pytest.fixture(scope="module")
def mobilenet() -> State:
    torch.manual_seed(8)
    return dict(zoo.mobilenet_v2(weights=None).state_dict())


def loaded(state: State, path: Path, arch: Architecture = "resnet18") -> Backbone:
    """A backbone with the weights of a state dict that went through a file."""
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    backbone = build_backbone(arch)
    load_weights(backbone, arch, str(path))
    return backbone


def refused(state: State, path: Path, arch: Architecture = "resnet18") -> str:
    with pytest.raises(WeightsError) as caught:
        loaded(state, path, arch)
    return str(caught.value)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors"])
def test_a_full_state_dict_of_a_resnet_fits(resnet18: State, tmp_path: Path, name: str) -> None:
    for key, tensor in loaded(resnet18, tmp_path / name).state_dict().items():
        assert torch.equal(tensor, resnet18[key]), key


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_full_state_dict_of_a_mobilenet_fits(mobilenet: State, tmp_path: Path, name: str) -> None:
    for key, tensor in loaded(mobilenet, tmp_path / name, "mobilenet_v2").state_dict().items():
        assert torch.equal(tensor, mobilenet["features." + key]), key


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_single(resnet18: State, tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    half = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in resnet18.items()}
    for key, tensor in loaded(half, tmp_path / name).state_dict().items():
        assert tensor.dtype == resnet18[key].dtype
        assert torch.equal(tensor, half[key].to(tensor.dtype))


def test_prefixes_and_wrappings_of_training_loops_are_understood(resnet18: State, tmp_path: Path) -> None:
    wanted = fingerprint(loaded(resnet18, tmp_path / "plain.pth").state_dict())
    parallel = {"module." + key: tensor for key, tensor in resnet18.items()}
    for name, document in {"parallel": parallel, "epoch": {"state_dict": parallel, "epoch": 3}}.items():
        path = tmp_path / f"{name}.pth"
        torch.save(document, path)
        assert load_weights(build_backbone("resnet18"), "resnet18", str(path)) == wanted


def test_the_fingerprint_is_of_the_contents(resnet18: State, tmp_path: Path) -> None:
    prints = {fingerprint(loaded(resnet18, tmp_path / name).state_dict()) for name in ("a.pth", "b.safetensors")}
    assert len(prints) == 1
    resnet18 = {**resnet18, "bn1.bias": resnet18["bn1.bias"] + 1e-6}
    prints.add(fingerprint(loaded(resnet18, tmp_path / "c.pth").state_dict()))
    assert len(prints) == 2
    cut = {**resnet18, "fc.bias": resnet18["fc.bias"] + 1, "layer4.0.bn1.bias": torch.ones(512)}
    prints.add(fingerprint(loaded(cut, tmp_path / "d.pth").state_dict()))
    assert len(prints) == 2  # what lies past the third level does not count


def test_counters_of_batch_norm_may_be_absent(resnet18: State, tmp_path: Path) -> None:
    """And make no difference to the fingerprint, present or absent, whatever they say."""
    without = {k: t for k, t in resnet18.items() if "num_batches" not in k}
    counted = {k: t + 7 if "num_batches" in k else t for k, t in resnet18.items()}
    backbones = [loaded(state, tmp_path / "w.safetensors") for state in (without, resnet18, counted)]
    assert int(backbones[2].state_dict()["bn1.num_batches_tracked"]) == 7
    assert len({fingerprint(backbone.state_dict()) for backbone in backbones}) == 1


def test_none_leaves_the_random_weights() -> None:
    backbone = build_backbone("mobilenet_v2")
    before = fingerprint(backbone.state_dict())
    assert load_weights(backbone, "mobilenet_v2", "none") == before


def test_missing_left_over_and_reshaped_tensors_are_named(resnet18: State, tmp_path: Path) -> None:
    state = {key: tensor for key, tensor in resnet18.items() if not key.startswith("layer2.0")}
    state["layer1.9.weight"] = torch.zeros(3)
    state["stranger"] = torch.zeros(3)
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    message = refused(state, tmp_path / "w.pth")
    assert str(tmp_path / "w.pth") in message
    assert "do not fit resnet18" in message
    assert "missing: layer2.0.bn1.bias, layer2.0.bn1.running_mean" in message
    assert "and 10 more" in message
    assert "left over: layer1.9.weight, stranger" in message
    assert "conv1.weight (64, 1, 7, 7) instead of (64, 3, 7, 7)" in message


def test_a_stranger_beside_a_mobilenet_is_named(mobilenet: State, tmp_path: Path) -> None:
    message = refused({**mobilenet, "head.weight": torch.zeros(2)}, tmp_path / "w.pth", "mobilenet_v2")
    assert "left over: head.weight" in message
    assert "missing" not in message


def test_weights_of_another_network_are_refused(resnet18: State, mobilenet: State, tmp_path: Path) -> None:
    assert "missing: 0.0.weight" in refused(resnet18, tmp_path / "a.pth", "mobilenet_v2")
    assert "missing: bn1.bias" in refused(mobilenet, tmp_path / "b.pth", "resnet18")
    assert "layer1.0.conv1.weight (64, 64, 3, 3)" in refused(resnet18, tmp_path / "c.pth", "resnet50")


def test_nothing_is_loaded_where_something_does_not_fit(resnet18: State, tmp_path: Path) -> None:
    backbone = build_backbone("resnet18")
    before = fingerprint(backbone.state_dict())
    torch.save({**resnet18, "layer3.1.bn2.bias": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError):
        load_weights(backbone, "resnet18", str(tmp_path / "w.pth"))
    assert fingerprint(backbone.state_dict()) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(resnet18: State, tmp_path: Path, value: float) -> None:
    state = {**resnet18, "layer3.1.bn2.bias": resnet18["layer3.1.bn2.bias"].clone()}
    state["layer3.1.bn2.bias"][200] = value
    assert "not finite, first in layer3.1.bn2.bias" in refused(state, tmp_path / "w.safetensors")


def test_an_artifact_is_a_source_of_weights(artifact: Artifact) -> None:
    backbone = build_backbone("resnet18")
    inside = artifact.detector.backbone.state_dict()
    assert load_weights(backbone, "resnet18", str(artifact.path)) == fingerprint(inside)
    with pytest.raises(WeightsError, match="do not fit mobilenet_v2: it is an artifact of a resnet18"):
        load_weights(build_backbone("mobilenet_v2"), "mobilenet_v2", str(artifact.path))


def test_an_artifact_s_weights_are_made_to_suit_the_normalisation_that_is_asked_for(
    artifact: Artifact, tmp_path: Path
) -> None:
    given = artifact.manifest.detector
    whole = in_whole_numbers(given.preprocess)
    torch.manual_seed(1)
    detector = build_detector(given.model_copy(update={"preprocess": whole})).eval()
    detector.load_state_dict(artifact.detector.state_dict() | detector.preprocess.state_dict(prefix="preprocess."))
    manifest = artifact.manifest.model_copy(update={"detector": given.model_copy(update={"preprocess": whole})})
    path = save(detector, manifest, artifact.calibration.scores, folder=tmp_path)
    plain, again = build_backbone("resnet18").eval(), build_backbone("resnet18").eval()
    load_weights(plain, "resnet18", str(path))
    load_weights(again, "resnet18", str(path), preprocess=whole)
    assert fingerprint(again.state_dict()) == fingerprint(detector.backbone.state_dict())
    greys = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        found, wanted = plain(Preprocess(PreprocessConfig())(greys)), again(Preprocess(whole)(greys))
    for level, peer in zip(found, wanted, strict=True):
        inner = slice(level.shape[-1] // 4, -(level.shape[-1] // 4))
        assert float((level - peer)[..., inner, inner].norm() / peer[..., inner, inner].norm()) < 0.02
        assert not torch.equal(level, peer)


def test_an_artifact_of_a_mobilenet_is_one_too(artifact: Artifact, tmp_path: Path) -> None:
    config = artifact.manifest.detector.model_copy(update={"arch": "mobilenet_v2"})
    detector = build_detector(config).eval()
    round_to_stored(detector)
    for buffer in detector.scorer.buffers():
        buffer.fill_(1 if buffer.dtype == torch.int8 else 1e-4)
    manifest = artifact.manifest.model_copy(update={"detector": config})
    path = save(detector, manifest, artifact.calibration.scores, folder=tmp_path)
    wanted = fingerprint(detector.backbone.state_dict())
    assert load_weights(build_backbone("mobilenet_v2"), "mobilenet_v2", str(path)) == wanted


def test_an_artifact_that_was_altered_is_no_source_of_weights(artifact: Artifact, tmp_path: Path) -> None:
    content = bytearray(artifact.path.read_bytes())
    content[-5000] ^= 1
    path = tmp_path / artifact.path.name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="altered, damaged or renamed") as caught:
        load_weights(build_backbone("resnet18"), "resnet18", str(path))
    assert str(path) in str(caught.value)


def test_an_artifact_without_its_metadata_is_none(artifact: Artifact, tmp_path: Path) -> None:
    assert "left over: backbone.bn1.bias" in refused(load_file(artifact.path), tmp_path / "w.safetensors")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of torch's, and no network."""

    def unreachable(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


@pytest.mark.parametrize("arch", ["wide_resnet50_2", "mobilenet_v2"])
def test_a_failed_download_tells_the_air_gapped_way(cache: Path, arch: Architecture) -> None:
    with torch.device("meta"):
        backbone = build_backbone(arch)
    with pytest.raises(WeightsError) as caught:
        load_weights(backbone, arch, "imagenet")
    message = str(caught.value)
    assert f"ImageNet weights of {arch} could not be downloaded" in message
    assert "Temporary failure in name resolution" in message
    assert f"https://download.pytorch.org/models/{arch}-" in message
    assert f"into {cache}" in message
    assert f"--weights PATH/TO/{arch}-" in message
    assert "--weights none" in message
    assert list(cache.iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_weights_put_into_the_cache_need_no_network(cache: Path, mobilenet: State) -> None:
    cache.mkdir(parents=True)
    torch.save(mobilenet, cache / "mobilenet_v2-b0353104.pth")
    backbone = build_backbone("mobilenet_v2")
    load_weights(backbone, "mobilenet_v2", "imagenet")
    assert torch.equal(backbone.state_dict()["13.conv.3.bias"], mobilenet["features.13.conv.3.bias"])


def test_code_in_the_cache_is_never_run(cache: Path, payload: Callable[[Path], object], tmp_path: Path) -> None:
    cache.mkdir(parents=True)
    torch.save({"a": payload(tmp_path / "pwned")}, cache / "mobilenet_v2-b0353104.pth")
    with pytest.raises(WeightsError, match="code in a file is never run"):
        load_weights(build_backbone("mobilenet_v2"), "mobilenet_v2", "imagenet")
    assert not (tmp_path / "pwned").exists()


def test_the_real_mobilenet_gives_torchvisions_features() -> None:
    path = SHARED / "weights" / "mobilenet_v2-imagenet.safetensors"
    if not path.is_file():
        pytest.skip(f"no real weights at {path}")
    backbone = build_backbone("mobilenet_v2").eval()
    load_weights(backbone, "mobilenet_v2", str(path))
    full = zoo.mobilenet_v2(weights=None).eval()
    full.load_state_dict(load_file(path))
    picture = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        levels = backbone(picture)
        for level, end in zip(levels, (4, 7, 14), strict=True):
            assert level.std() > 0.01
            assert torch.equal(level, full.features[:end](picture))
