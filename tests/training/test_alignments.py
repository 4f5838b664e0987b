import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.alignment import OVERSAMPLING, Alignment, AlignmentConfig, part_mask
from training.alignments import alignments, inspected_share, label, unaligned
from training.recipe import AlignmentSection
from training.synthetic import Tiles

SIDE = 64
TAKEN = OVERSAMPLING * SIDE


def bar(
    length: float, width: float, *, degrees: float = 0.0, at: tuple[float, float] = (0.0, 0.0)
) -> NDArray[np.uint8]:
    """A bright bar with a head on a dark ground, (S, S, 3); lengths and the place in shares of half the picture."""
    y, x = np.mgrid[0:TAKEN, 0:TAKEN]
    x, y = (2 * x + 1) / TAKEN - 1 - at[0], (2 * y + 1) / TAKEN - 1 - at[1]
    turn = np.deg2rad(degrees)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    inside = (np.abs(along) < length) & (np.abs(across) < width * np.where(along > 0.6 * length, 1, 0.6))
    return np.where(inside, 200, 30).astype(np.uint8)[..., None].repeat(3, 2)


def tiles_of(*pictures: NDArray[np.uint8]) -> Tiles:
    return Tiles.without_foregrounds(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous())


def section(ways: object = ("rotate", "shift"), stretches: object = 1.0) -> AlignmentSection:
    return AlignmentSection.model_validate({"ways": ways, "stretches": stretches})


def extent(tiles: Tiles, config: AlignmentConfig) -> tuple[float, float]:
    """The furthest that aligned parts reach from the middle, (across the frame, down it); 1 is its border."""
    aligned, _ = Alignment(config, side=SIDE)(tiles.images)
    reaches = []
    for mask in part_mask(aligned).numpy():
        rows, columns = np.nonzero(mask)
        half = mask.shape[0] / 2
        reaches.append((np.abs(columns + 0.5 - half).max() / half, np.abs(rows + 0.5 - half).max() / half))
    wide, high = np.max(reaches, axis=0)
    return float(wide), float(high)


@pytest.fixture(scope="module")
def turned() -> Tiles:
    """Bars that lie every which way and are not equally long."""
    rng = np.random.default_rng(0)
    return tiles_of(
        *(
            bar(0.5 + 0.04 * n, 0.2, degrees=45 * n, at=(float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.1, 0.1))))
            for n in range(6)
        )
    )


def test_under_rotation_the_longest_part_just_fits(turned: Tiles) -> None:
    (config,) = alignments(turned, section("rotate"), square=True)
    assert config.name == "rotate"
    wide, high = extent(turned, config)
    assert 0.88 < wide <= 1
    assert high < 0.5  # equally enlarged, a bar stays a bar
    assert config.along == config.across


def test_a_stretch_enlarges_across_more_than_along(turned: Tiles) -> None:
    plain, stretched, more = alignments(turned, section("rotate", [1.0, 1.5, 4.0]), square=True)
    assert plain.along == stretched.along == more.along
    assert stretched.across / stretched.along == pytest.approx(1.5, abs=0.02)
    wide, high = extent(turned, more)
    assert wide <= 1
    assert more.across == OVERSAMPLING  # never more than there is detail for
    assert 0.35 < high <= 1


def test_under_shift_the_reach_is_that_of_the_upright_box() -> None:
    lying = tiles_of(bar(0.6, 0.2), bar(0.6, 0.2, at=(0.3, 0.5)), bar(0.5, 0.15, at=(-0.3, -0.2)))
    (config,) = alignments(lying, section("shift"), square=False)
    assert config.name == "shift"
    wide, high = extent(lying, config)
    assert 0.85 < wide <= 1
    assert high < 0.5
    slanted = tiles_of(bar(0.6, 0.1, degrees=45))
    (diagonal,) = alignments(slanted, section("shift"), square=True)
    (level,) = alignments(slanted, section("rotate"), square=True)
    assert diagonal.along > 1.2 * level.along  # on the diagonal there is more room
    assert max(extent(slanted, diagonal)) <= 1


def test_no_part_is_enlarged_more_than_there_is_detail_for() -> None:
    small = tiles_of(bar(0.2, 0.1), bar(0.15, 0.1, degrees=90))
    for config in alignments(small, section(stretches=[1.0, 4.0]), square=True):
        assert max(config.along, config.across) <= OVERSAMPLING
    plain = alignments(small, section(), square=True)
    assert all(max(config.along, config.across) == OVERSAMPLING for config in plain)


def test_pictures_that_were_squashed_are_not_turned(turned: Tiles) -> None:
    found = alignments(turned, section(), square=False)
    assert [config.name for config in found] == ["shift"]
    assert alignments(turned, section("rotate"), square=False) == []


def test_alignments_that_come_to_the_same_are_tried_once() -> None:
    full = tiles_of(bar(0.9, 0.9))
    found = alignments(full, section("shift", [1.0, 1.5, 2.0]), square=True)
    assert len(found) == len(set(found)) < 3


@pytest.mark.parametrize(("even", "aligned"), [(0, True), (1, True), (2, False)])
def test_where_parts_cannot_be_seen_nothing_is_aligned(even: int, aligned: bool) -> None:
    blank = np.full((TAKEN, TAKEN, 3), 90, np.uint8)
    tiles = tiles_of(*[blank] * even, *[bar(0.5, 0.2)] * (20 - even))
    assert bool(alignments(tiles, section(), square=True)) is aligned


def test_unaligned_pictures_are_half_as_large() -> None:
    rng = np.random.default_rng(0)
    pictures = torch.from_numpy(rng.integers(0, 256, (70, 3, 8, 8), dtype=np.uint8))
    small = unaligned(pictures)
    assert (small.shape, small.dtype) == ((70, 3, 4, 4), torch.uint8)
    means = pictures.double().view(70, 3, 4, 2, 4, 2).mean((3, 5))
    assert (small.double() - means).abs().max() <= 0.5


def test_what_is_ignored_does_not_count_as_part() -> None:
    def clamped(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        picture[-TAKEN // 8 :, : TAKEN // 8] = 200
        return picture

    keep = torch.ones(16, 16, dtype=torch.bool)
    keep[-3:, :3] = False
    clean, clamps = tiles_of(bar(0.5, 0.2)), tiles_of(clamped(bar(0.5, 0.2)))
    wanted = alignments(clean, section("rotate"), square=True)
    assert alignments(clamps, section("rotate"), square=True, keep=keep) == wanted
    assert alignments(clamps, section("rotate"), square=True) != wanted


def test_the_inspected_share_is_that_of_the_part_s_frame() -> None:
    middle = tiles_of(bar(0.4, 0.2), bar(0.4, 0.2))
    shares = [
        inspected_share(middle, AlignmentConfig(name="shift", along=along, across=across), keep=None)
        for along, across in ((0.8, 0.8), (1.25, 1.0), (2.0, 2.0))
    ]
    assert shares == pytest.approx([1, 0.8, 0.25], abs=0.06)


def test_a_label_says_which_alignment() -> None:
    assert label(None) == "none"
    assert label(AlignmentConfig(name="rotate", along=1.25, across=2)) == "rotate x1.25 x2"
