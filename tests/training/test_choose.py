from pathlib import Path

import numpy as np
import pytest
import torch

from models.compact_gaussian import CompactGaussianConfig
from training.choose import (
    Candidate,
    Figures,
    ValidationSet,
    best,
    decide,
    figures_of,
    gains,
    hold_out,
    make_validation_set,
)
from training.synthetic import Synthetic, Tiles, Use, make_tiles
from training.textures import ProceduralTextures


def source(tiles: Tiles) -> Synthetic:
    return Synthetic(tiles, ProceduralTextures(), 0)


def places(tiles: Tiles) -> list[int]:
    return list(tiles.chosen or ())


@pytest.mark.parametrize(
    ("n", "share", "most", "held"), [(16, 0.25, 100, 4), (16, 0.25, 3, 3), (16, 0.01, 100, 2), (10, 0.2, 100, 2)]
)
def test_some_are_held_out_and_none_is_lost(part_tiles: Tiles, n: int, share: float, most: int, held: int) -> None:
    tiles = part_tiles.subset(range(n))
    learning, apart = hold_out(tiles, share=share, most=most, seed=0)
    assert len(apart) == held
    assert sorted(places(learning) + places(apart)) == list(range(n))
    assert places(learning) == sorted(places(learning))


def test_the_seed_says_which_are_held_out(part_tiles: Tiles) -> None:
    drawn = [places(hold_out(part_tiles, share=0.25, most=9, seed=seed)[1]) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_validation_set_is_good_tiles_and_defective_copies(part_tiles: Tiles) -> None:
    held = part_tiles.subset([3, 9, 4])
    data = make_validation_set(source(held), defects=2)
    assert data.tiles.shape == (9, 3, 64, 64)
    assert data.masks.shape == (9, 64, 64)
    assert torch.equal(data.tiles[:3], next(held.batches(99)))
    assert not data.masks[:3].any()
    assert data.masks[3:].any(axis=(1, 2)).all()
    for index in range(3, 9):
        changed = (data.tiles[index] != next(held.batches(99))[index % 3]).any(0).numpy()
        assert changed.any()
        assert not (changed & ~data.masks[index]).any()
    assert not np.array_equal(data.masks[3:6], data.masks[6:9])


def test_a_validation_set_is_the_same_each_time(part_tiles: Tiles) -> None:
    one, two = (make_validation_set(source(part_tiles.subset([1, 2])), defects=2) for _ in range(2))
    assert torch.equal(one.tiles, two.tiles)
    assert np.array_equal(one.masks, two.masks)


def test_no_validation_defect_is_one_of_training(part_tiles: Tiles, tmp_path: Path) -> None:
    # As textures, so that a mask depends on the draw alone; the positions 4 to 7 are drawn in both.
    learning, held = (
        make_tiles(part_tiles.images[part], "texture", folder=tmp_path) for part in (slice(0, 4), slice(4, 16))
    )
    validation = {mask.tobytes() for mask in make_validation_set(source(held), defects=2).masks[12:]}
    training = {
        source(learning).example(position, use, epoch=epoch)[1].tobytes()
        for use in (Use.JIGSAW, Use.FUSION)
        for epoch in range(3)
        for position in range(4, 8)
    }
    assert (len(validation), len(training)) == (24, 24)
    assert not validation & training


def squares() -> ValidationSet:
    """Four good tiles, and four with a square each."""
    masks = np.zeros((8, 64, 64), np.bool_)
    for index, (top, left) in enumerate(((4, 4), (40, 28), (20, 44), (28, 16))):
        masks[4 + index, top : top + 16, left : left + 16] = True
    return ValidationSet(torch.zeros(8, 3, 64, 64, dtype=torch.uint8), masks)


def test_maps_that_tell_defects_are_worth_most() -> None:
    truth = squares().truth((16, 16))
    maps = torch.from_numpy(truth).float()
    assert figures_of(maps, truth) == Figures(1.0, 1.0)
    assert figures_of(1 - maps, truth).pixel_auroc == 0.0
    assert figures_of(torch.zeros(8, 16, 16), truth) == Figures(0.5, 0.5)
    elsewhere = figures_of(maps.roll(8, dims=2), truth)  # the right pictures, the wrong places
    assert elsewhere.image_auroc == 1.0
    assert elsewhere.pixel_auroc < 0.6
    assert elsewhere.decisive == (elsewhere.image_auroc + elsewhere.pixel_auroc) / 2


def test_one_loud_cell_decides_about_a_picture() -> None:
    maps = torch.rand(8, 16, 16)
    maps[:, 0, 0] = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8])
    assert figures_of(maps, squares().truth((16, 16))).image_auroc == 1.0


def test_truth_is_where_half_of_a_cell_is_defective_and_of_a_small_defect_something() -> None:
    masks = np.zeros((3, 8, 8), np.bool_)
    masks[0, 0:4, 0:6] = True  # a cell, and half of the next
    masks[1, 5, 5] = True  # a sixteenth of a cell
    truth = ValidationSet(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), masks).truth((2, 2))
    assert truth[0].tolist() == [[True, True], [False, False]]
    assert truth[1].tolist() == [[False, False], [False, True]]
    assert not truth[2].any()


def candidate(decisive: float, *, rank: int = 4) -> Candidate:
    scorer = CompactGaussianConfig(dimensions=8, rank=rank, shrinkage=0.03, pooling=3)
    return Candidate(scorer, 2.0, Figures(decisive, decisive))


def test_the_best_is_the_first_of_the_highest() -> None:
    tried = [candidate(0.8, rank=1), candidate(0.9, rank=2), candidate(0.9, rank=3)]
    assert best(tried) is tried[1]


def test_a_label_says_what_was_tried() -> None:
    assert candidate(0.8).label == "rank 4, shrinkage 0.03, pooling 3, smoothing 2"


@pytest.mark.parametrize(
    ("gain", "margin", "gained"), [(0.0, 0.0, False), (0.25, 0.0, True), (0.25, 0.25, True), (0.25, 0.5, False)]
)
def test_a_gain_is_more_and_by_the_margin(gain: float, margin: float, gained: bool) -> None:
    assert gains(Figures(0.5, 0.5), Figures(0.5 + gain, 0.5 + gain), margin=margin) is gained


@pytest.mark.parametrize(
    ("with_", "kept"),
    [
        (Figures(0.9, 0.8), False),  # a tie
        (Figures(0.91, 0.8), True),
        (Figures(0.85, 0.86), True),  # the mean of both decides
        (Figures(0.95, 0.74), False),
    ],
)
def test_a_stage_is_kept_only_where_it_gains(with_: Figures, kept: bool) -> None:
    choice = decide("fusion", Figures(0.9, 0.8), with_, margin=0.0)
    assert choice.kept is kept
    assert choice.stage == "fusion"
    assert ("does not raise" in choice.reason) is not kept
    assert f"0.8500 without, {with_.decisive:.4f} with" in choice.reason
    assert choice.figures == {
        "image_auroc_without": 0.9,
        "image_auroc_with": with_.image_auroc,
        "pixel_auroc_without": 0.8,
        "pixel_auroc_with": with_.pixel_auroc,
    }


@pytest.mark.parametrize(("gain", "kept"), [(0.03125, False), (0.0625, True), (0.125, True)])
def test_a_gain_below_the_margin_is_luck(gain: float, kept: bool) -> None:
    choice = decide("jigsaw", Figures(0.75, 0.75), Figures(0.75 + gain, 0.75 + gain), margin=0.0625)
    assert choice.kept is kept
    assert ("0.0625" in choice.reason) is not kept
