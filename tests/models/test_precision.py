"""Which weights an artifact holds in half precision, that rounding twice is rounding once, and what is computed in."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from models import precision
from models.artifact import Artifact, load, save
from models.compact_gaussian import CompactGaussianConfig
from models.detector import Detector, DetectorConfig, build_detector
from models.errors import DeviceError
from models.precision import Precision, cpu_has_bfloat16, pick_precision, round_to_stored, stored_dtype
from models.preprocess import PreprocessConfig


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(3)
    config = DetectorConfig(
        arch="resnet18",
        preprocess=PreprocessConfig(image_size=64),
        fusion="mfcsam",
        scorer=CompactGaussianConfig(dimensions=4, rank=2, shrinkage=0.1, pooling=1),
        smoothing=2,
    )
    return build_detector(config).eval()


@pytest.mark.parametrize(
    ("name", "tensor", "stored"),
    [
        ("backbone.conv1.weight", torch.zeros(2, 3, 1, 1), torch.float16),
        ("backbone.bn1.weight", torch.zeros(2), torch.float32),
        ("backbone.bn1.running_var", torch.zeros(2), torch.float32),
        ("backbone.bn1.num_batches_tracked", torch.zeros((), dtype=torch.int64), torch.int64),
        ("fusion.direct1.weight", torch.zeros(2, 3, 1, 1), torch.float32),
        ("scorer.mean1", torch.zeros(2, 3, 4), torch.float32),
        ("scorer.directions", torch.zeros(2, 3, 4, dtype=torch.int8), torch.int8),
        ("smoothing.keep", torch.ones(2, 3, dtype=torch.bool), torch.bool),
        ("preprocess.mean", torch.zeros(3, 1, 1), torch.float32),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_only_convolutions_of_the_backbone_are_halved(name: str, tensor: Tensor, stored: torch.dtype) -> None:
    assert stored_dtype(name, tensor) == stored


def test_rounding_changes_the_halved_weights_alone_and_by_little(detector: Detector) -> None:
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    round_to_stored(detector)
    changed = {name for name, tensor in detector.state_dict().items() if not torch.equal(tensor, before[name])}
    assert all(name.startswith("backbone.") for name in changed)
    halved = {name for name in before if stored_dtype(name, before[name]) != before[name].dtype}
    assert len(halved) > 10
    assert halved <= changed
    for name in halved:
        after = detector.state_dict()[name]
        assert after.dtype == torch.float32  # it can be trained further
        assert torch.equal(after, after.half().bfloat16().float())
        assert torch.allclose(after, before[name], rtol=2**-8, atol=2**-24)  # batch norms that scale by 1 alone


def test_rounding_twice_is_rounding_once(detector: Detector) -> None:
    round_to_stored(detector)
    once = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    round_to_stored(detector)
    assert all(torch.equal(tensor, once[name]) for name, tensor in detector.state_dict().items())


def test_the_weights_of_a_rounded_detector_are_loaded_bit_for_bit(
    detector: Detector, artifact: Artifact, tmp_path: Path
) -> None:
    round_to_stored(detector)
    detector.scorer.load_state_dict({n: torch.rand(t.shape) for n, t in detector.scorer.state_dict().items()})
    detector.scorer.directions.copy_(torch.randint(-127, 128, detector.scorer.directions.shape))
    detector.scorer.corrections /= 1e6
    shape = artifact.manifest.detector.model_copy(update={"fusion": "mfcsam", "scorer": detector.scorer.config})
    manifest = artifact.manifest.model_copy(update={"detector": shape})
    loaded = load(save(detector, manifest, artifact.calibration.scores, folder=tmp_path)).detector
    for name, tensor in detector.state_dict().items():
        assert loaded.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(loaded.state_dict()[name], tensor), name
    tiles = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        # Not to the bit: that depends on where in memory the same weights lie.
        torch.testing.assert_close(loaded(tiles).map, detector(tiles).map, rtol=1e-5, atol=0)


def test_an_artifact_is_little_larger_than_its_backbone_in_half_precision(artifact: Artifact) -> None:
    with safe_open(artifact.path, framework="pt") as file:
        types = {name: file.get_slice(name).get_dtype() for name in sorted(file.keys())}
    assert types["backbone.layer3.1.conv2.weight"] == "F16"
    assert types["backbone.layer3.1.bn2.weight"] == "F32"
    weights = sum(tensor.numel() for tensor in artifact.detector.backbone.state_dict().values())
    assert artifact.path.stat().st_size < 1.1 * 2 * weights


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_computes_in_what_it_multiplies_natively(
    native: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: native)
    assert pick_precision("auto", torch.device("cpu")) == dtype


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_a_gpu_computes_in_what_it_multiplies_natively(
    capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert pick_precision("auto", torch.device("cuda")) == dtype


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("wished", ["float32", "bfloat16"])
def test_what_is_wished_for_is_given(wished: Precision, device: str) -> None:
    assert pick_precision(wished, torch.device(device)) == getattr(torch, wished)


def test_float16_is_for_gpus() -> None:
    assert pick_precision("float16", torch.device("cuda")) == torch.float16
    with pytest.raises(DeviceError, match=r"float16 is for CUDA.*--precision auto"):
        pick_precision("float16", torch.device("cpu"))


def test_the_processor_is_asked_and_not_guessed() -> None:
    flags = Path("/proc/cpuinfo")
    if not flags.exists() or "flags" not in flags.read_text():
        pytest.skip("this system does not tell its processor's flags")
    told = next(line for line in flags.read_text().splitlines() if line.startswith("flags")).split()
    assert cpu_has_bfloat16() == bool({"avx512_bf16", "amx_tile"} & set(told))
