"""The detector as a whole: shapes, the score, batches, and that its configuration fixes its state."""

import copy
from functools import cache
from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from models.artifact import Artifact
from models.backbone import Architecture, Backbone, build_backbone
from models.detector import Detector, DetectorConfig, FusionName, build_detector
from models.fused_backbone import FusedBackbone
from models.gaussian import DenseGaussianConfig, covariance_factor, pack_lower, select_channels
from models.mfcsam import concatenate
from models.preprocess import PreprocessConfig
from models.smoothing import Smoothing

CPU = torch.device("cpu")
DENSE = DenseGaussianConfig(channels=9)


def config(
    *,
    arch: Architecture = "resnet18",
    fusion: FusionName = "none",
    smoothing: float = 4,
    **preprocess: int,
) -> DetectorConfig:
    return DetectorConfig(
        arch=arch,
        preprocess=PreprocessConfig(**{"image_size": 64, **preprocess}),
        fusion=fusion,
        scorer=DENSE,
        smoothing=smoothing,
    )


def tiles(b: int) -> Tensor:
    return torch.randint(0, 256, (b, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(b))


@cache
def fitted(fusion: FusionName, smoothing: float = 4) -> Detector:
    """Random weights and random Gaussians around the features of some tiles."""
    torch.manual_seed(5)
    detector = build_detector(config(fusion=fusion, smoothing=smoothing)).eval().requires_grad_(False)
    scorer = detector.scorer
    scorer.indices.copy_(select_channels(448, 9, seed=1))
    scorer.mean.copy_(scorer.embed(detector.levels(tiles(4))[0]).mean(0))
    root = torch.randn(256, 9, 20)
    scorer.whitening.copy_(pack_lower(covariance_factor(root @ root.mT + 0.01 * torch.eye(9))))
    return detector


every_fusion = pytest.mark.parametrize("fusion", get_args(FusionName))


@every_fusion
def test_a_batch_gives_a_score_and_a_map_each(fusion: FusionName) -> None:
    detection = fitted(fusion)(tiles(3))
    assert detection.score.shape == (3,)
    assert detection.map.shape == (3, 16, 16)
    assert detection.score.dtype == detection.map.dtype == torch.float32
    assert (detection.map >= 0).all()
    assert detection.map.std() > 0


@every_fusion
def test_the_score_is_the_maximum_of_the_map(fusion: FusionName) -> None:
    detection = fitted(fusion)(tiles(3))
    assert torch.equal(detection.score, detection.map.flatten(1).max(1).values)


@every_fusion
def test_a_tile_is_judged_alike_alone_and_in_a_batch(fusion: FusionName) -> None:
    batch = tiles(5)
    together = fitted(fusion)(batch)
    for n in range(5):
        alone = fitted(fusion)(batch[n : n + 1])
        assert torch.allclose(alone.score[0], together.score[n], rtol=1e-4, atol=0)
        assert torch.allclose(alone.map[0], together.map[n], rtol=1e-4, atol=1e-5)


def test_the_stages_come_in_their_order() -> None:
    detector, batch = fitted("mfcsam"), tiles(2)
    levels = detector.fusion(*detector.backbone(detector.preprocess(batch)))  # type: ignore[misc]
    assert all(torch.equal(a, b) for a, b in zip(levels, detector.levels(batch)[0], strict=True))
    features = concatenate(levels)[:, detector.scorer.indices].flatten(2).transpose(1, 2)  # (b, p, d)
    scorer = detector.scorer
    whitening = torch.zeros(256, 9, 9)
    rows, columns = torch.tril_indices(9, 9)
    whitening[:, rows, columns] = scorer.whitening
    distances = torch.einsum("pij,bpj->bpi", whitening, features - scorer.mean).norm(dim=-1)
    wanted = detector.smoothing(distances.view(2, 16, 16))
    assert torch.allclose(detector(batch).map, wanted, rtol=1e-4, atol=1e-4)


def test_fusion_changes_the_levels_but_not_their_shapes() -> None:
    (plain, pose), (fused, _) = fitted("none").levels(tiles(1)), fitted("mfcsam").levels(tiles(1))
    assert pose is None
    assert fitted("none").fusion is None
    assert [level.shape for level in plain] == [level.shape for level in fused]
    assert not torch.equal(plain[0], fused[0])


def test_smoothing_is_given_in_pixels_of_the_input() -> None:
    # 4 px of the input are one position of its map, whose edge is a quarter.
    assert len(build_detector(config(smoothing=4)).smoothing.kernel) == 2 * 4 + 1
    assert len(build_detector(config(smoothing=0)).smoothing.kernel) == 1
    rough, smooth = fitted("none", 0)(tiles(1)), fitted("none", 8)(tiles(1))
    assert smooth.map.std() < rough.map.std()


def test_the_widest_smoothing_that_is_allowed_works() -> None:
    for image_size, widest in ((32, 7), (64, 15), (128, 31)):
        detector = build_detector(config(image_size=image_size, smoothing=widest)).eval()
        detector(torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8))
        with pytest.raises(ValidationError, match=rf"too wide for a picture of {image_size} px"):
            config(image_size=image_size, smoothing=widest + 0.5)


@every_fusion
@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2"])
def test_its_state_is_known_without_memory(arch: Architecture, fusion: FusionName) -> None:
    torch.manual_seed(0)
    real = build_detector(config(arch=arch, fusion=fusion)).eval()
    with torch.device("meta"):
        hollow = build_detector(config(arch=arch, fusion=fusion)).eval()
    assert all(tensor.is_meta for tensor in hollow.state_dict().values())
    real.scorer.whitening.fill_(0.5)
    hollow.load_state_dict(real.state_dict(), assign=True)  # names and shapes agree, or this fails
    with torch.inference_mode():
        # Everything that a detector computes with is in its state, or this fails on the meta device.
        assert torch.equal(hollow(tiles(1)).map, real(tiles(1)).map)


def test_a_configuration_fixes_the_shapes() -> None:
    first, second = (build_detector(config(fusion="mfcsam")).state_dict() for _ in range(2))
    assert {n: t.shape for n, t in first.items()} == {n: t.shape for n, t in second.items()}


def test_a_huge_detector_costs_nothing_without_memory() -> None:
    with torch.device("meta"):
        detector = build_detector(
            config(arch="wide_resnet50_2", fusion="mfcsam", image_size=2048).model_copy(
                update={"scorer": DenseGaussianConfig(channels=1792)}
            )
        )
    assert detector.scorer.whitening.nbytes > 10**12


def test_more_channels_than_there_are_cannot_be_selected() -> None:
    with pytest.raises(ValueError, match="449 channels cannot be selected out of 448"):
        build_detector(config().model_copy(update={"scorer": DenseGaussianConfig(channels=449)}))


@pytest.mark.parametrize("call", ["forward", "levels"])
def test_it_convolves_in_full_precision_whatever_torch_is_set_to(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen: list[bool] = []

    def note(module: torch.nn.Module, _inputs: object) -> None:
        if isinstance(module, torch.nn.Conv2d | Smoothing):
            seen.append(torch.backends.cudnn.allow_tf32)

    hooks = [module.register_forward_pre_hook(note) for module in artifact.detector.modules()]
    getattr(artifact.detector, call)(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    assert len(seen) > 10
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("fusion", get_args(FusionName))
@pytest.mark.parametrize("smoothing", [0, 4])
def test_made_to_score_in_float32_it_scores_the_same(fusion: FusionName, smoothing: float) -> None:
    detector, batch = fitted(fusion, smoothing), tiles(3)
    ready = detector.for_scoring(CPU, torch.float32)
    assert isinstance(ready.backbone, FusedBackbone)
    assert not ready.training
    torch.testing.assert_close(ready(batch).map, detector(batch).map, rtol=1e-2, atol=1e-3)
    assert isinstance(detector.backbone, Backbone)  # and the one that it was made from stays


def test_made_to_score_an_artifact_is_nearly_the_same_in_bfloat16(artifact: Artifact) -> None:
    batch = tiles(4)
    with torch.inference_mode():
        plain = artifact.detector(batch).score
        single, half = (artifact.detector.for_scoring(CPU, dtype) for dtype in (torch.float32, torch.bfloat16))
        assert half.backbone.dtype == half.scorer.dtype == torch.bfloat16
        torch.testing.assert_close(single(batch).score, plain, rtol=1e-3, atol=0)
        scores = half(batch).score
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, plain)
    torch.testing.assert_close(scores, plain, rtol=0.05, atol=0)


def test_weights_of_more_digits_than_bfloat16_has_are_computed_with_in_float32() -> None:
    detector, batch = fitted("none"), tiles(2)  # its weights were never rounded
    asked, got = (detector.for_scoring(CPU, dtype) for dtype in (torch.bfloat16, torch.float32))
    assert asked.backbone.dtype == torch.float32
    torch.testing.assert_close(asked(batch).map, got(batch).map)


def test_a_backbone_that_is_fused_already_is_shared(artifact: Artifact) -> None:
    first = artifact.detector.for_scoring(CPU, torch.bfloat16)
    other = copy.deepcopy(artifact.detector)
    other.backbone = first.backbone
    again = other.for_scoring(CPU, torch.float32)
    assert again.backbone is first.backbone
    assert again.scorer.dtype == torch.bfloat16  # the backbone's


def test_a_backbone_may_be_given() -> None:
    backbone = build_backbone("resnet18")
    detector = build_detector(config(), backbone=backbone)
    assert detector.backbone is backbone
    assert detector.state_dict().keys() == build_detector(config()).state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_levels_are_had_without_making_a_scorer_ready(artifact: Artifact, dtype: torch.dtype) -> None:
    detector = artifact.detector
    ready = detector.for_levels(CPU, dtype)
    assert ready.scorer is detector.scorer
    wanted = detector.for_scoring(CPU, dtype)
    batch = tiles(3)
    for found, other in zip(ready.levels(batch)[0], wanted.levels(batch)[0], strict=True):
        assert torch.equal(found, other)
