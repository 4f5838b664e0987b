"""Poses of drawn parts, the frame they are brought into, and the way back for a map."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from models.alignment import OVERSAMPLING, Alignment, AlignmentConfig, Pose, moments, part_mask

SIDE = 64
EDGE = OVERSAMPLING * SIDE
ANGLES = [math.radians(degrees) for degrees in range(-180, 180, 20)]
PLACES = [(0.0, 0.0), (0.3, -0.2), (-0.25, 0.35)]


def alignment(name: str = "rotate", **scales: float) -> Alignment:
    return Alignment(AlignmentConfig.model_validate({"name": name, **scales}), side=SIDE)


def frame(angle: float, place: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Every pixel's coordinates along a part that lies so and across it, from its centre; the edge is 2."""
    line = (torch.arange(EDGE) * 2 + 1) / EDGE - 1
    x, y = line[None, :] - place[0], line[:, None] - place[1]
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def drawn(part: Tensor) -> Tensor:
    """A light part (S, S), shares of pixels, on a dark ground, (1, 3, S, S) uint8."""
    picture = 40 + 160 * part.clamp(0, 1)
    return picture.round().to(torch.uint8).expand(1, 3, -1, -1).contiguous()


def soft(distance: Tensor) -> Tensor:
    """1 inside (positive), 0 outside, over a pixel's width at the edge."""
    return (distance * EDGE / 2 + 0.5).clamp(0, 1)


def bar(angle: float = 0.0, place: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """1 long and 0.3 wide."""
    along, across = frame(angle, place)
    return drawn(torch.minimum(soft(0.5 - along.abs()), soft(0.15 - across.abs())))


def wedge(angle: float = 0.0, place: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """A triangle, 0.9 long with a base of 0.5, its tip in the direction of `angle`; its centre is at `place`."""
    along, across = frame(angle, place)
    return drawn(torch.minimum(soft(along + 0.3), soft((0.6 - along) * 0.25 / 0.9 - across.abs())))


def apart(first: float, second: float) -> float:
    """How far two directions differ, 0 to π."""
    return abs(math.remainder(first - second, 2 * math.pi))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("angle", ANGLES)
def test_a_wedge_is_found_with_its_direction(angle: float, place: tuple[float, float]) -> None:
    pose = alignment().pose(wedge(angle, place))
    assert pose.centre[0].tolist() == pytest.approx(place, abs=0.02)
    assert apart(float(pose.angle[0]), angle) < math.radians(2)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("angle", ANGLES)
def test_of_a_bar_there_is_an_axis(angle: float, place: tuple[float, float]) -> None:
    pose = alignment().pose(bar(angle, place))
    assert pose.centre[0].tolist() == pytest.approx(place, abs=0.02)
    found = float(pose.angle[0])
    assert min(apart(found, angle), apart(found, angle + math.pi)) < math.radians(2)


def test_a_dark_part_on_a_light_ground_lies_alike() -> None:
    light, dark = wedge(0.7, (0.1, 0.2)), 240 - wedge(0.7, (0.1, 0.2))
    for one, other in zip(alignment().pose(light), alignment().pose(dark), strict=True):
        assert torch.allclose(one, other, atol=0.02)


def test_specks_and_grain_do_not_move_the_pose() -> None:
    random = torch.Generator().manual_seed(0)
    clean = wedge(0.7, (0.1, 0.2))
    noisy = (clean.float() + 6 * torch.randn(clean.shape, generator=random)).clamp(0, 255).to(torch.uint8)
    noisy[:, :, 4:40:4, 4:40:4] = 255
    assert not part_mask(noisy)[:, :44, :44].any()
    clean_pose, pose = alignment().pose(clean), alignment().pose(noisy)
    assert torch.allclose(pose.centre, clean_pose.centre, atol=0.01)
    assert torch.allclose(pose.angle, clean_pose.angle, atol=0.02)


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_an_even_picture_shows_no_part_and_stays_as_it_is(level: int) -> None:
    picture = torch.full((1, 3, EDGE, EDGE), level, dtype=torch.uint8)
    assert not part_mask(picture).any()
    aligned, pose = alignment()(picture)
    assert not pose.centre.any()
    assert not pose.angle.any()
    assert torch.allclose(aligned, picture[:, :, :SIDE, :SIDE].float(), atol=1e-3)


def test_a_part_in_its_place_already_is_only_made_smaller() -> None:
    picture = torch.randint(0, 256, (2, 3, EDGE, EDGE), generator=torch.Generator().manual_seed(0)).float()
    here = Pose(torch.zeros(2, 2), torch.zeros(2))
    assert torch.allclose(alignment().align(picture, here), F.avg_pool2d(picture, OVERSAMPLING), atol=1e-2)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("angle", ANGLES)
def test_a_turned_part_is_brought_to_the_same_picture(angle: float, place: tuple[float, float]) -> None:
    straight, _ = alignment()(wedge())
    brought, _ = alignment()(wedge(angle, place))
    assert brought.shape == (1, 3, SIDE, SIDE)
    assert (brought - straight).abs().mean() < 1  # a wedge turned by 20 degrees alone differs by 4.7


def test_shifting_moves_and_does_not_turn() -> None:
    aligned, pose = alignment("shift")(wedge(0.9, (0.3, -0.2)))
    assert not pose.angle.any()
    assert pose.centre[0].tolist() == pytest.approx((0.3, -0.2), abs=0.02)
    assert (aligned - alignment("shift")(wedge(0.9))[0]).abs().mean() < 1


@pytest.mark.parametrize(("along", "across"), [(1.0, 1.0), (1.5, 1.0), (0.5, 2.0)])
def test_scales_are_along_the_part_and_across_it(along: float, across: float) -> None:
    aligned, _ = alignment(along=along, across=across)(bar(0.6, (0.2, 0.1)))
    light = aligned[0, 0] > 120
    assert int(light.any(dim=0).sum()) == pytest.approx(0.5 * SIDE * along, abs=1.5)  # the columns that it takes
    assert int(light.any(dim=1).sum()) == pytest.approx(0.15 * SIDE * across, abs=1.5)


@pytest.mark.parametrize("name", ["rotate", "shift"])
@pytest.mark.parametrize("angle", [-2.5, -0.4, 0.0, 1.0, 2.0])
def test_a_peak_comes_back_to_where_it_was_in_the_picture(angle: float, name: str) -> None:
    place = (0.15, -0.1)
    picture = wedge(angle, place)
    along, across = frame(angle, place)
    spot = (along - 0.2).square() + (across - 0.05).square() < 0.03**2
    picture[:, :, spot] = 255
    aligner = alignment(name, along=1.3, across=1.1)
    aligned, pose = aligner(picture)
    score_map = F.avg_pool2d((aligned[:, 0] - 205).clamp_min(0), 4)  # (1, 16, 16)
    located, _ = aligner.back(score_map, pose)
    assert located.shape == (1, OVERSAMPLING * 16, OVERSAMPLING * 16)
    peak = divmod(int(located.argmax()), located.shape[2])
    row, column = (spot.nonzero().float().mean(0) + 0.5) / EDGE * located.shape[1] - 0.5
    assert abs(peak[0] - float(row)) < 2  # of the finer grid: one cell of the map
    assert abs(peak[1] - float(column)) < 2


def test_back_leads_through_the_same_turn_as_align() -> None:
    """A smooth picture, aligned and turned back, is itself wherever the aligned one shows it."""
    along, across = frame(0.0, (0.0, 0.0))
    smooth = (along * 2 + across.square() + 3)[None, None]
    aligner = alignment(along=0.9, across=0.7)
    pose = Pose(torch.tensor([[0.1, -0.2]]), torch.tensor([0.8]))
    located = aligner.back(aligner.align(smooth, pose)[:, 0], pose)[0][0]
    middle = slice(EDGE // 4, -EDGE // 4)
    assert torch.allclose(located[middle, middle], smooth[0, 0, middle, middle], atol=0.02)


def test_outside_of_what_was_seen_the_edges_are_continued() -> None:
    aligner = alignment(along=2, across=2)  # sees the middle quarter
    score_map = 5 + torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    located, outside = aligner.back(score_map, Pose(torch.zeros(1, 2), torch.zeros(1)))
    middle = torch.zeros(32, 32, dtype=torch.bool)
    middle[8:24, 8:24] = True
    assert torch.equal(outside, ~middle[None])
    torch.testing.assert_close(located[0, 8:24, 8:24], score_map[0], rtol=1e-4, atol=1e-4)
    for row, column, nearest in ((0, 0, (0, 0)), (31, 31, (15, 15)), (3, 12, (0, 4)), (20, 30, (12, 15))):
        assert located[0, row, column] == pytest.approx(float(score_map[0, *nearest]), rel=1e-4)


def test_what_is_not_looked_at_is_no_part() -> None:
    picture = wedge(0.3, (0.2, 0.1))
    clean = alignment().pose(picture)
    picture[:, :, EDGE // 2 :, : EDGE // 4] = 255  # a clamp, up to the border
    keep = torch.ones(16, 16, dtype=torch.bool)
    keep[8:, :4] = False
    assert (alignment().pose(picture).centre - clean.centre).abs().max() > 0.1
    assert not part_mask(picture, keep)[0, 32:, :16].any()
    for found, wanted in zip(alignment()(picture, keep)[1], clean, strict=True):
        assert torch.allclose(found, wanted, atol=0.02)


def test_where_the_whole_border_is_ignored_the_background_is_still_found() -> None:
    keep = torch.zeros(16, 16, dtype=torch.bool)
    keep[1:-1, 1:-1] = True
    picture = wedge(0.3)
    for found, wanted in zip(alignment().pose(picture, keep), alignment().pose(picture), strict=True):
        assert torch.allclose(found, wanted, atol=0.01)


def test_some_poses_of_all() -> None:
    pose = Pose(torch.arange(8.0).view(4, 2), torch.arange(4.0))
    some = pose.of(slice(1, 3))
    assert some.centre.tolist() == [[2, 3], [4, 5]]
    assert some.angle.tolist() == [1, 2]
    some = pose.of(torch.tensor([3, 0]))
    assert some.centre.tolist() == [[6, 7], [0, 1]]
    assert some.angle.tolist() == [3, 0]


def test_no_value_comes_back_beyond_those_of_the_map() -> None:
    random = torch.Generator().manual_seed(0)
    for round_ in range(60):
        scales = {name: 0.3 + 1.7 * float(torch.rand(1, generator=random)) for name in ("along", "across")}
        score_map = 100 * torch.rand(4, 1, 1, generator=random).expand(4, 16, 16)  # even: rounding alone may exceed it
        if round_ % 2:
            score_map = score_map * torch.rand(4, 16, 16, generator=random)
        pose = Pose(torch.rand(4, 2, generator=random) - 0.5, 6.3 * torch.rand(4, generator=random))
        located, _ = alignment(**scales).back(score_map, pose)
        assert (located.amax((1, 2)) <= score_map.amax((1, 2))).all()
        assert (located.amin((1, 2)) >= score_map.amin((1, 2))).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_a_fault_of_a_map_stays_one_even_where_nobody_looks(value: float, scale: float) -> None:
    score_map = torch.rand(2, 16, 16)
    score_map[1, 0, 0] = value
    located, _ = alignment(along=scale, across=scale).back(score_map, Pose(torch.zeros(2, 2), torch.full((2,), 0.7)))
    first, second = located.amax((1, 2))
    assert first.isfinite()
    assert not second.isfinite()


def test_a_picture_is_aligned_alike_each_time_alone_and_among_others() -> None:
    batch = torch.cat([wedge(0.3), bar(1.0, (0.2, 0.1)), wedge(2.0, (-0.1, 0.3))])
    together, poses = alignment()(batch)
    again, _ = alignment()(batch)
    assert torch.equal(together, again)
    for index in range(3):
        alone, pose = alignment()(batch[index : index + 1])
        assert torch.allclose(pose.centre, poses.centre[index : index + 1], atol=1e-6)
        assert torch.allclose(pose.angle, poses.angle[index : index + 1], atol=1e-6)
        assert torch.allclose(alone, together[index : index + 1], atol=0.1)


def test_moments_say_how_far_a_part_reaches() -> None:
    centre, angle, reach = moments(part_mask(bar(0.5, (0.2, -0.1))))
    assert centre[0].tolist() == pytest.approx((0.2, -0.1), abs=0.02)
    assert float(angle[0]) % math.pi == pytest.approx(0.5, abs=0.03)
    assert reach[0].tolist() == pytest.approx((0.5, 0.15), abs=0.03)
    nothing = moments(torch.zeros(2, 9, 9, dtype=torch.bool))
    assert not any(part.any() for part in nothing)


@pytest.mark.parametrize("edge", [64, 112, 224, 448, 900])
def test_the_mask_is_of_bounded_size_whatever_the_picture_s(edge: int) -> None:
    picture = torch.full((1, 3, edge, edge), 20, dtype=torch.uint8)
    picture[:, :, edge // 4 : edge // 2, edge // 4 : edge // 2] = 200
    mask = part_mask(picture)
    assert mask.dtype == torch.bool
    assert mask.shape[1] == mask.shape[2] <= 2 * 112
    assert float(mask.float().mean()) == pytest.approx(1 / 16, rel=0.1)


def test_it_holds_nothing_that_an_artifact_would_have_to() -> None:
    assert not alignment().state_dict()


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "mirror"), ("along", 0.1), ("along", 2.1), ("across", 0), ("across", float("nan")), ("surprise", 1)],
)
def test_config_refuses_what_makes_no_sense(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        AlignmentConfig.model_validate({"name": "rotate", field: value})


def test_config_allows_its_limits() -> None:
    config = AlignmentConfig(name="shift", along=2.0, across=0.11)
    assert AlignmentConfig.model_validate_json(config.model_dump_json()) == config
