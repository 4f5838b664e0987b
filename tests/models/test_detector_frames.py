"""A detector whose pictures come in tiles, in an own frame or partly ignored: one map, in the picture's own frame."""

import math
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from models import detector as module
from models.alignment import Pose
from models.compact_gaussian import CompactGaussian, CompactGaussianConfig
from models.coupled import Coupled, CoupledConfig
from models.detector import Detector, DetectorConfig, Scorer, ScorerConfig, build_detector
from models.errors import ArtifactError
from models.gaussian import DenseGaussian, DenseGaussianConfig
from models.memory_bank import MemoryBank, MemoryBankConfig
from models.preprocess import PreprocessConfig

COMPACT = CompactGaussianConfig(dimensions=12, rank=3, shrinkage=0.1, pooling=3)
SCORERS: dict[type[Scorer], ScorerConfig] = {
    CompactGaussian: COMPACT,
    DenseGaussian: DenseGaussianConfig(channels=9),
    MemoryBank: MemoryBankConfig(vectors=20),
    Coupled: CoupledConfig(dimensions=6, vectors=20),
}
ALIGNED = {"align": {"name": "rotate", "along": 1.2, "across": 1.0}}
FRAMES = {
    "plain": {},
    "tiled": {"tiles": 2},
    "aligned": ALIGNED,
    "both": {"tiles": 2, **ALIGNED},
}
every_frame = pytest.mark.parametrize("frame", FRAMES)
every_scorer = pytest.mark.parametrize("kind", SCORERS)


def config(frame: str, scorer: ScorerConfig = COMPACT) -> DetectorConfig:
    preprocess = PreprocessConfig.model_validate({"image_size": 64, **FRAMES[frame]})
    return DetectorConfig(arch="resnet18", preprocess=preprocess, fusion="none", scorer=scorer, smoothing=2)


def part(edge: int, angle: float = 0.0, *, hole: bool = False) -> Tensor:
    """A wedge with a dark band, (3, S, S) uint8, turned around the middle; it may have a hole off its axis."""
    line = (torch.arange(edge) * 2 + 1) / edge - 1
    x, y = line[None, :], line[:, None]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    inside = torch.minimum(along + 0.3, (0.6 - along) * 0.35 - across.abs())
    picture = 40 + 160 * (inside * edge / 2 + 0.5).clamp(0, 1)
    picture -= 60 * ((0.05 - (along - 0.1).abs()) * edge / 2 + 0.5).clamp(0, 1) * (inside > 0)
    if hole:
        radius = ((along + 0.1).square() + (across - 0.1).square()).sqrt()
        picture += 55 * ((0.08 - radius) * edge / 2 + 0.5).clamp(0, 1)
    return picture.clamp(0, 255).round().to(torch.uint8).expand(3, -1, -1).contiguous()


def noise(b: int, edge: int) -> Tensor:
    return torch.randint(0, 256, (b, 3, edge, edge), dtype=torch.uint8, generator=torch.Generator().manual_seed(b))


def filled(detector: Detector) -> Detector:
    """Random numbers where a fit would put its own; directions as short as they must be."""
    random = torch.Generator().manual_seed(1)
    for name, buffer in detector.scorer.named_buffers():
        if name == "directions":
            buffer.copy_(torch.randint(128, buffer.shape, generator=random))
        elif name == "corrections":
            buffer.fill_(1 / (8 * 127) ** 2)
        elif buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=random))
    return detector.eval().requires_grad_(False)


@cache
def detectors(frame: str) -> Detector:
    """Whitens one and the same part's levels, at whatever place: a score is a distance from that part."""
    torch.manual_seed(5)
    detector = filled(build_detector(config(frame)))
    scorer = detector.scorer
    assert isinstance(scorer, CompactGaussian)
    levels, _ = detector.levels(part(detector.preprocess.config.taken)[None])
    for buffer, level in zip(scorer.means, levels, strict=True):
        buffer.copy_(F.avg_pool2d(level, 3, 1, 1, count_include_pad=False)[0])
    return detector


@every_frame
@every_scorer
def test_every_scorer_gives_a_score_that_is_the_maximum_of_the_map(kind: type[Scorer], frame: str) -> None:
    shape = config(frame, SCORERS[kind])
    torch.manual_seed(5)
    detector = filled(build_detector(shape))
    assert isinstance(detector.scorer, kind)
    detection = detector(noise(2, shape.preprocess.taken))
    assert detection.map.shape == (2, shape.map_edge, shape.map_edge)
    assert detection.map.dtype == torch.float32
    assert torch.equal(detection.score, detection.map.flatten(1).max(1).values)
    assert (detection.map >= 0).all()
    assert detection.map.std() > 0


@every_frame
@every_scorer
def test_its_state_is_known_without_memory(kind: type[Scorer], frame: str) -> None:
    torch.manual_seed(5)
    real = filled(build_detector(config(frame, SCORERS[kind])))
    with torch.device("meta"):
        hollow = build_detector(config(frame, SCORERS[kind])).eval()
    assert all(tensor.is_meta for tensor in hollow.state_dict().values())
    hollow.load_state_dict(real.state_dict(), assign=True)
    batch = noise(1, real.preprocess.config.taken)
    with torch.inference_mode():
        assert torch.equal(hollow(batch).map, real(batch).map)


@every_scorer
def test_what_was_never_fitted_is_refused(kind: type[Scorer]) -> None:
    with pytest.raises(ArtifactError, match="never fitted"):
        build_detector(config("plain", SCORERS[kind])).check()


@every_frame
def test_a_picture_is_judged_alike_alone_and_in_a_batch(frame: str) -> None:
    detector = detectors(frame)
    edge = detector.preprocess.config.taken
    batch = torch.stack([part(edge, 0.3, hole=True), part(edge, 2.0), *noise(3, edge)])
    together = detector(batch)
    for n in range(len(batch)):
        alone = detector(batch[n : n + 1])
        torch.testing.assert_close(alone.map[0], together.map[n], rtol=1e-3, atol=1e-3)


def test_each_tile_passes_through_the_network_alone() -> None:
    detector, batch = detectors("tiled"), noise(2, 128)
    levels, _ = detector.levels(batch)
    assert [tuple(level.shape[2:]) for level in levels] == [(32, 32), (16, 16), (8, 8)]
    corner = detector.backbone(detector.preprocess(batch[:, :, :64, 64:]))
    for level, own in zip(levels, corner, strict=True):
        half = level.shape[2] // 2
        torch.testing.assert_close(level[:, :, :half, half:], own, rtol=1e-4, atol=1e-4)


def test_large_pictures_pass_through_the_network_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = detectors("tiled")
    monkeypatch.setattr(module, "_USUAL", 48)
    sizes: list[int] = []
    hook = detector.backbone.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    batch = noise(11, 128)
    detection = detector(batch)
    hook.remove()
    assert sizes == [4 * 9, 4 * 2]  # 64 pictures of 48 px are 9 of 128 px
    torch.testing.assert_close(detection.map[9:], detector(batch[9:]).map, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("frame", ["aligned", "both"])
@pytest.mark.parametrize("degrees", [15, 90, 160, -120])
def test_an_aligned_detector_scores_a_turned_part_alike(frame: str, degrees: int) -> None:
    detector, angle = detectors(frame), math.radians(degrees)
    edge = detector.preprocess.config.taken
    good, bad = (detector(torch.stack([part(edge, a, hole=hole) for a in (0, angle)])) for hole in (False, True))
    assert float(bad.score[1]) == pytest.approx(float(bad.score[0]), rel=0.2)  # a hole of one cell, resampled
    assert float(good.score[0]) < float(bad.score.min()) / 4  # that part itself
    assert float(good.score[1]) < float(bad.score.min()) / 2


@pytest.mark.parametrize("frame", ["aligned", "both"])
@pytest.mark.parametrize("degrees", [0, 90, -120])
def test_an_aligned_detector_s_map_is_in_the_picture_s_own_frame(frame: str, degrees: int) -> None:
    detector, angle = detectors(frame), math.radians(degrees)
    edge = detector.preprocess.config.taken
    score_map = detector(part(edge, angle, hole=True)[None]).map[0]
    row, column = divmod(int(score_map.argmax()), score_map.shape[1])
    x, y = ((place + 0.5) / score_map.shape[0] * 2 - 1 for place in (column, row))
    hole = (-0.1 * math.cos(angle) - 0.1 * math.sin(angle), -0.1 * math.sin(angle) + 0.1 * math.cos(angle))
    assert math.dist((x, y), hole) < 0.25


def test_without_alignment_a_turned_part_is_another() -> None:
    detector = detectors("plain")
    still, turned = detector(torch.stack([part(64), part(64, math.radians(90))])).score
    assert turned > 4 * still


@every_frame
def test_what_is_ignored_is_ignored_in_the_picture_s_own_frame(frame: str) -> None:
    torch.manual_seed(5)
    detector = filled(build_detector(config(frame)))
    detector.scorer.load_state_dict(detectors(frame).scorer.state_dict())
    detector.backbone.load_state_dict(detectors(frame).backbone.state_dict())
    edge = detector.preprocess.config.taken
    batch = part(edge, 0.5, hole=True)[None]
    everywhere = detector(batch)
    keep = detector.smoothing.keep
    assert keep is not None
    assert keep.shape == everywhere.map.shape[1:]
    place = int(everywhere.map.argmax())
    row, column = divmod(place, keep.shape[1])
    keep[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = False
    elsewhere = detector(batch)
    if detector.alignment is None:  # a part of which a piece is ignored has another pose, here and in a fit
        assert float(elsewhere.score) < float(everywhere.score)
    assert not elsewhere.map[0][~keep].any()
    assert torch.equal(elsewhere.score, elsewhere.map.flatten(1).max(1).values)
    keep.zero_()
    with pytest.raises(ArtifactError, match="ignores every position"):
        detector.check()


def test_what_lies_beyond_the_part_s_frame_is_the_smoothed_map_s_minimum() -> None:
    preprocess = {"image_size": 64, "align": {"name": "shift", "along": 2.0, "across": 2.0}}
    aligned = config("aligned").model_dump() | {"preprocess": preprocess}
    detector = filled(build_detector(DetectorConfig.model_validate(aligned)))
    maps = 5 + torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    finished = detector.finish(maps, Pose(torch.zeros(1, 2), torch.zeros(1)))[0]
    beyond = torch.ones(32, 32, dtype=torch.bool)
    beyond[8:24, 8:24] = False
    assert (finished[beyond] == finished.min()).all()
    assert float(finished.min()) >= 5  # edges are continued: nothing bleeds in from outside
    assert finished[~beyond].std() > 0


def test_the_smoothing_is_as_wide_in_every_frame() -> None:
    widths = {}
    for frame in FRAMES:
        shape = config(frame)
        widths[frame] = shape.map_smoothing * shape.preprocess.side / shape.map_edge
        assert shape.map_edge == {"plain": 16, "tiled": 32, "aligned": 32, "both": 64}[frame]
    assert set(widths.values()) == {2}
    assert config("plain", MemoryBankConfig(vectors=20)).map_edge == 8


@pytest.mark.parametrize(("frame", "widest"), [("plain", 15), ("tiled", 31), ("aligned", 15.5), ("both", 31.5)])
def test_a_smoothing_must_fit_into_the_map_of_its_frame(frame: str, widest: float) -> None:
    shape = config(frame).model_dump()
    filled(build_detector(DetectorConfig.model_validate({**shape, "smoothing": widest})))(
        noise(1, config(frame).preprocess.taken)
    )
    with pytest.raises(ValidationError, match="too wide for a picture"):
        DetectorConfig.model_validate({**shape, "smoothing": widest + 0.5})
