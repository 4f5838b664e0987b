"""Artifacts that are whole: what was saved is what is loaded, under the name of its own hash."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from models import artifact as module
from models.alignment import AlignmentConfig
from models.artifact import Artifact, load, read_manifest, save
from models.coupled import CoupledConfig
from models.detector import Detector, DetectorConfig, ScorerConfig, build_detector
from models.errors import ArtifactError
from models.gaussian import DenseGaussianConfig, covariance_factor, pack_lower
from models.images import decode
from models.memory_bank import MemoryBankConfig
from models.precision import round_to_stored
from models.preprocess import PreprocessConfig

Pictures = Callable[[int], bytes]


@pytest.fixture
def batch(artifact: Artifact, good: Pictures, bad: Pictures) -> Tensor:
    pictures = [decode(maker(seed)) for maker in (good, bad) for seed in (1, 2)]
    return torch.stack([artifact.detector.preprocess.resize(picture) for picture in pictures])


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def again(artifact: Artifact, folder: Path) -> Path:
    return save(artifact.detector, artifact.manifest, artifact.calibration.scores, folder=folder)


def test_what_was_saved_is_what_is_loaded(artifact: Artifact, batch: Tensor, tmp_path: Path) -> None:
    copy = load(again(artifact, tmp_path))
    with torch.inference_mode():
        before, after = artifact.detector(batch), copy.detector(batch)
    assert torch.equal(before.score, after.score)
    assert torch.equal(before.map, after.map)
    assert copy.manifest == artifact.manifest
    assert torch.equal(copy.calibration.scores, artifact.calibration.scores)
    for name, tensor in artifact.detector.state_dict().items():
        assert torch.equal(tensor, copy.detector.state_dict()[name])


def test_a_detector_with_fusion_comes_back_too(artifact: Artifact, batch: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = DetectorConfig(
        arch="mobilenet_v2",
        preprocess=PreprocessConfig(image_size=64, resize=81, mean=(0.1, 0.2, 0.3)),
        fusion="mfcsam",
        scorer=DenseGaussianConfig(channels=5),
        smoothing=0,
    )
    detector = build_detector(config).eval()
    detector.scorer.indices.copy_(torch.tensor([0, 23, 24, 60, 151]))
    detector.scorer.whitening.copy_(pack_lower(covariance_factor(0.1 * torch.eye(5).expand(256, 5, 5))))
    round_to_stored(detector)
    manifest = artifact.manifest.model_copy(update={"detector": config, "category": "ring"})
    copy = load(save(detector, manifest, artifact.calibration.scores, folder=tmp_path))
    with torch.inference_mode():
        torch.testing.assert_close(copy.detector(batch).map, detector(batch).map, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "scorer",
    [DenseGaussianConfig(channels=5), MemoryBankConfig(vectors=30), CoupledConfig(dimensions=6, vectors=20)],
    ids=lambda scorer: scorer.name,
)
def test_whatever_the_scorer_and_the_frame_it_comes_back(
    artifact: Artifact, tmp_path: Path, scorer: ScorerConfig
) -> None:
    torch.manual_seed(1)
    align = AlignmentConfig(name="rotate", along=1.5)
    preprocess = PreprocessConfig(image_size=32, tiles=2, align=align)
    config = artifact.manifest.detector.model_copy(update={"preprocess": preprocess, "scorer": scorer})
    detector = build_detector(config).eval()
    round_to_stored(detector)
    for buffer in detector.scorer.buffers():
        buffer.copy_(torch.rand(buffer.shape) if buffer.is_floating_point() else buffer)
    assert detector.smoothing.keep is not None
    detector.smoothing.keep[3:9, :5] = False
    manifest = artifact.manifest.model_copy(update={"detector": config, "ignored": "3" * 64, "refitted_from": "0" * 12})
    copy = load(save(detector, manifest, artifact.calibration.scores, folder=tmp_path))
    assert copy.manifest == manifest
    picture = torch.randint(0, 256, (1, 3, 128, 128), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(copy.detector(picture).map, detector(picture).map, rtol=1e-4, atol=1e-5)
    for name, tensor in detector.state_dict().items():
        assert torch.equal(copy.detector.state_dict()[name], tensor), name


def test_the_same_inputs_give_the_same_bytes(make: Callable[..., Path], tmp_path: Path) -> None:
    first, second, other = (make(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("a", 2)))
    assert first.name == second.name != other.name
    assert first.read_bytes() == second.read_bytes()


def test_its_name_is_its_category_and_its_hash(artifact: Artifact) -> None:
    digest = hashlib.sha256(artifact.path.read_bytes()).hexdigest()
    assert artifact.version == digest[:12]
    assert artifact.path.name == f"{digest[:12]}.safetensors"
    assert artifact.path.parent.name == artifact.manifest.category == "plate"


def test_any_difference_is_another_version(artifact: Artifact, tmp_path: Path) -> None:
    manifest, scores = artifact.manifest, artifact.calibration.scores
    paths = {
        again(artifact, tmp_path),
        save(artifact.detector, manifest.model_copy(update={"textures": "x"}), scores, folder=tmp_path),
        save(artifact.detector, manifest, scores.nextafter(torch.tensor(99.0)), folder=tmp_path),
    }
    assert len(paths) == 3


def test_the_metadata_has_one_key(artifact: Artifact) -> None:
    with safe_open(artifact.path, framework="pt") as file:
        assert file.metadata() == {"jigsight": artifact.manifest.to_json()}


def test_the_detector_is_ready_to_judge(artifact: Artifact) -> None:
    assert not artifact.detector.training
    assert not any(tensor.requires_grad for tensor in artifact.detector.parameters())
    assert not any(tensor.is_meta for tensor in artifact.detector.state_dict().values())
    assert artifact.device == torch.device("cpu")


def test_it_judges_at_its_own_threshold_or_at_another(artifact: Artifact, batch: Tensor) -> None:
    with torch.inference_mode():
        scores, maps = artifact.detector(batch)
    size = (96, 128)
    verdicts = [artifact.judge(float(s), m.numpy(), size=size) for s, m in zip(scores, maps, strict=True)]
    assert [judgement.verdict for judgement in verdicts] == ["pass", "pass", "fail", "fail"]
    assert {judgement.threshold for judgement in verdicts} == {artifact.manifest.threshold.value}
    highest = float(scores.max())
    assert artifact.judge(float(scores[3]), maps[3].numpy(), size=size, threshold=highest).verdict == "pass"
    assert artifact.judge(float(scores[0]), maps[0].numpy(), size=size, threshold=0.0).verdict == "fail"
    box = max(verdicts[2].regions, key=lambda region: region.peak).box
    assert box[0] + box[2] > 80  # the defect lies in the lower right quarter
    assert box[1] + box[3] > 60


def test_its_regions_reach_down_to_its_pixel_threshold(artifact: Artifact, batch: Tensor) -> None:
    with torch.inference_mode():
        scores, maps = artifact.detector(batch)
    score, score_map, size = float(scores[2]), maps[2].numpy(), (96, 128)
    value = artifact.manifest.threshold.value
    record = artifact.manifest.threshold.model_copy(update={"pixel": value / 4})
    reaching = replace(artifact, manifest=artifact.manifest.model_copy(update={"threshold": record}))
    plain, wide = (each.judge(score, score_map, size=size) for each in (artifact, reaching))
    assert (wide.verdict, wide.score, wide.threshold) == (plain.verdict, plain.score, plain.threshold)
    assert sum(region.area for region in wide.regions) > 1.2 * sum(region.area for region in plain.regions)
    # A lower threshold than the pixel's is the one that counts.
    low = value / 8
    both = [each.judge(score, score_map, size=size, threshold=low).regions for each in (artifact, reaching)]
    assert both[0] == both[1]


def test_the_manifest_can_be_read_alone(artifact: Artifact) -> None:
    assert read_manifest(artifact.path) == artifact.manifest


def test_saving_twice_leaves_one_file(artifact: Artifact, tmp_path: Path) -> None:
    first = again(artifact, tmp_path)
    assert again(artifact, tmp_path) == first
    assert everything(tmp_path) == [f"plate/{first.name}"]
    assert first.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("failing", ["save_file", "sync", "_digest"])
def test_a_failure_leaves_nothing_behind(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full_disk(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, failing, full_disk)
        with pytest.raises(OSError, match="No space left"):
            again(artifact, tmp_path)
    assert everything(tmp_path) == []
    load(again(artifact, tmp_path))


def test_nothing_under_the_final_name_is_ever_partial(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a name appears the content is on the disk: the file is flushed before the rename, the folder after."""
    seen: list[tuple[str, list[str]]] = []
    inodes: list[int] = []
    real = module.sync

    def watched(path: Path) -> None:
        inodes.append(path.stat().st_ino)
        seen.append((path.name, [name for name in everything(tmp_path) if name.endswith(".safetensors")]))
        real(path)

    monkeypatch.setattr(module, "sync", watched)
    path = again(artifact, tmp_path)
    assert [names for _, names in seen] == [[], [f"plate/{path.name}"]]
    assert seen[0][0].startswith(".incoming-")
    assert seen[1][0] == "plate"
    assert path.stat().st_ino == inodes[0]  # renamed, not copied


def test_a_failed_rewrite_leaves_the_old_file_whole(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = again(artifact, tmp_path)

    def torn(tensors: dict[str, Tensor], target: Path, **_kwargs: object) -> None:
        target.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_file", torn)
    with pytest.raises(KeyboardInterrupt):
        again(artifact, tmp_path)
    assert everything(tmp_path) == [f"plate/{path.name}"]
    load(path)


def test_scores_of_any_kind_of_float_are_stored_as_single(artifact: Artifact, tmp_path: Path) -> None:
    scores = torch.linspace(1, 2, 24, dtype=torch.float64).flip(0)[::1]
    copy = load(save(artifact.detector, artifact.manifest, scores, folder=tmp_path))
    assert np.allclose(copy.calibration.scores, np.linspace(1, 2, 24))


def test_an_unfitted_detector_is_not_usable(artifact: Artifact, tmp_path: Path) -> None:
    unfitted: Detector = build_detector(artifact.manifest.detector).eval()
    path = save(unfitted, artifact.manifest, artifact.calibration.scores, folder=tmp_path)
    with pytest.raises(ArtifactError, match=r"scorer\.whitening holds nothing but zeros: it was never fitted"):
        load(path)


def test_a_device_that_is_not_there_is_named_with_the_file(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match=r"cannot be put on cuda:99 \(.+\)\. Use --device cpu") as caught:
        artifact.ready("cuda:99")
    assert str(caught.value).startswith(f"{artifact.path} is not used: ")


def test_a_full_device_is_named_with_the_file_and_the_need(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Detector:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(Detector, "for_scoring", full)
    with pytest.raises(ArtifactError, match=r"does not fit on cpu: it needs about 11 MB there\.") as caught:
        artifact.ready("cpu")
    assert str(caught.value).startswith(f"{artifact.path} is not used: ")
    assert "smaller scorer (--recipe small)" in str(caught.value)


@pytest.mark.gpu
def test_a_full_gpu_refuses_it(artifact: Artifact) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-5)
    try:
        with pytest.raises(ArtifactError, match="does not fit on cuda"):
            artifact.ready("cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.gpu
def test_it_loads_onto_a_gpu(artifact: Artifact, batch: Tensor) -> None:
    on_gpu = load(artifact.path).ready("cuda", precision="float32")
    wanted, scores = artifact.runner(list(batch)).scores, on_gpu.runner(list(batch)).scores
    np.testing.assert_allclose(scores, wanted, rtol=1e-3)
