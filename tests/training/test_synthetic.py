from pathlib import Path

import numpy as np
import pytest
import torch

from models.alignment import OVERSAMPLING, Alignment, AlignmentConfig
from training.synthetic import Synthetic, Tiles, Use, in_frame, make_tiles
from training.textures import ProceduralTextures


def synthetic(tiles: Tiles, *, seed: int = 0) -> Synthetic:
    return Synthetic(tiles, ProceduralTextures(), seed)


def test_an_objects_foreground_is_the_part(part_tiles: Tiles) -> None:
    assert part_tiles.foregrounds.shape == (16, 64, 64)
    assert 0.5 < part_tiles.foregrounds.mean() < 0.6  # a plate of 48 x 48 on 64 x 64
    assert part_tiles.foregrounds[:, 32, 32].all()
    assert not part_tiles.foregrounds[:, 1, 1].any()


def test_a_texture_is_foreground_everywhere(part_tiles: Tiles, tmp_path: Path) -> None:
    assert make_tiles(part_tiles.images, "texture", folder=tmp_path).foregrounds.all()
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_cannot_be_found_is_foreground_everywhere(tmp_path: Path) -> None:
    even = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    assert make_tiles(even, "object", folder=tmp_path).foregrounds.all()


def test_what_is_ignored_is_no_foreground(part_tiles: Tiles, tmp_path: Path) -> None:
    ignored = np.zeros((64, 64), np.bool_)
    ignored[:, :32] = True
    part = make_tiles(part_tiles.images, "object", folder=tmp_path, ignored=ignored)
    assert np.array_equal(part.foregrounds, part_tiles.foregrounds & ~ignored)
    texture = make_tiles(part_tiles.images, "texture", folder=tmp_path, ignored=ignored)
    assert np.array_equal(texture.foregrounds[3], ~ignored)


def test_a_part_that_is_wholly_ignored_leaves_the_rest_of_the_picture(part_tiles: Tiles, tmp_path: Path) -> None:
    ignored = part_tiles.foregrounds.any(axis=0)
    tiles = make_tiles(part_tiles.images, "object", folder=tmp_path, ignored=ignored)
    assert np.array_equal(tiles.foregrounds[0], ~ignored)


@pytest.mark.parametrize("kind", ["object", "texture"])
def test_no_defect_is_drawn_where_pictures_are_ignored(part_tiles: Tiles, tmp_path: Path, kind: str) -> None:
    ignored = np.zeros((64, 64), np.bool_)
    ignored[:40] = True
    source = synthetic(make_tiles(part_tiles.images, kind, folder=tmp_path, ignored=ignored))  # type: ignore[arg-type]
    for index in range(len(part_tiles)):
        tile, mask = source.draw(index, source.generator(Use.FUSION, epoch=0, index=index))
        assert mask.any()
        assert not (mask & ignored).any()
        assert torch.equal(tile[:, ignored], part_tiles.images[index][:, ignored])


def test_a_subset_keeps_images_and_foregrounds_together(part_tiles: Tiles) -> None:
    subset = part_tiles.subset([5, 2, 9]).subset([1, 0])
    assert len(subset) == 2
    (batch,) = subset.batches()
    for here, there in ((0, 2), (1, 5)):
        image, foreground = subset[here]
        assert torch.equal(image, part_tiles.images[there])
        assert torch.equal(batch[here], image)
        assert np.array_equal(foreground, part_tiles.foregrounds[there])
    assert [len(batch) for batch in part_tiles.batches(6)] == [6, 6, 4]
    assert torch.equal(torch.cat(list(part_tiles.batches(6))), part_tiles.images)


def test_a_defect_changes_its_mask_only_and_lies_on_the_part(part_tiles: Tiles) -> None:
    source = synthetic(part_tiles)
    for index in range(len(part_tiles)):
        tile, mask = source.draw(index, source.generator(Use.FUSION, epoch=0, index=index))
        changed = (tile != part_tiles.images[index]).any(0).numpy()
        assert tile.dtype == torch.uint8
        assert changed.any()
        assert not (changed & ~mask).any()
        assert not (mask & ~part_tiles.foregrounds[index]).any()


def test_an_epoch_is_good_tiles_followed_by_as_many_synthetic_ones(part_tiles: Tiles) -> None:
    source = synthetic(part_tiles)
    for position in (0, 15):
        tile, mask, _ = source.example(position, Use.JIGSAW, epoch=3)
        assert torch.equal(tile, part_tiles.images[position])
        assert not mask.any()
    for position in (16, 31):
        tile, mask, _ = source.example(position, Use.JIGSAW, epoch=3)
        good = part_tiles.images[position - 16]
        assert mask.any()
        assert torch.equal(tile[:, ~mask], good[:, ~mask])
        assert not torch.equal(tile, good)


def test_draws_depend_on_seed_use_epoch_and_index_alone(part_tiles: Tiles) -> None:
    def drawn(seed: int, use: Use, epoch: int, index: int) -> bytes:
        source = synthetic(part_tiles, seed=seed)
        tile, mask = source.draw(0, source.generator(use, epoch=epoch, index=index))
        return tile.numpy().tobytes() + mask.tobytes()

    base = (0, Use.JIGSAW, 0, 0)
    assert drawn(*base) == drawn(*base)
    others = [
        (1, Use.JIGSAW, 0, 0),
        (0, Use.FUSION, 0, 0),
        (0, Use.VALIDATION, 0, 0),
        (0, Use.JIGSAW, 1, 0),
        (0, Use.JIGSAW, 0, 1),
    ]
    assert len({drawn(*base), *(drawn(*other) for other in others)}) == 6


def test_examples_come_in_the_parts_own_frame(part_tiles: Tiles) -> None:
    wide = wide_parts(part_tiles)
    alignment = Alignment(AlignmentConfig(name="shift", along=1.25, across=1.25), side=64)
    source = Synthetic(wide, ProceduralTextures(), 0, alignment)
    plain = Synthetic(wide, ProceduralTextures(), 0)
    tile, mask, rng = source.example(3, Use.FUSION, epoch=0)
    expected, _ = alignment(wide.images[3:4])
    assert torch.equal(tile, expected[0].round().to(torch.uint8))
    assert (mask.shape, mask.any()) == ((64, 64), False)
    assert rng.random() == plain.example(3, Use.FUSION, epoch=0)[2].random()

    shares = []
    for position in range(16, 32):
        tile, mask, _ = source.example(position, Use.FUSION, epoch=0)
        _, before, _ = plain.example(position, Use.FUSION, epoch=0)
        assert (tile.shape, mask.shape, before.shape) == ((3, 64, 64), (64, 64), (128, 128))
        good, _, _ = source.example(position - 16, Use.FUSION, epoch=0)
        # The pose is that of the picture with its defect, as it will be in production; so compare what is covered.
        shares.append(mask.mean() / before.mean())
        assert (tile != good).any()
    assert 1.2 < np.mean(shares) < 1.9  # 1.25² = 1.56 of the share, less what is cut off


def wide_parts(part_tiles: Tiles) -> Tiles:
    """The parts as they are taken for an alignment."""
    return Tiles(
        part_tiles.images.repeat_interleave(OVERSAMPLING, 2).repeat_interleave(OVERSAMPLING, 3),
        part_tiles.foregrounds.repeat(OVERSAMPLING, 1).repeat(OVERSAMPLING, 2),
    )


def test_good_tiles_that_were_aligned_once_are_those_that_are_aligned_each_time(
    part_tiles: Tiles, tmp_path: Path
) -> None:
    some = wide_parts(part_tiles).subset([3, 1, 7])
    alignment = Alignment(AlignmentConfig(name="rotate", along=0.9, across=1.1), side=64)
    source = Synthetic(some, ProceduralTextures(), 0, alignment)
    framed = in_frame(source, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []  # a file without a name
    for position in range(6):
        (tile, mask, rng), (expected, where, generator) = (
            each.example(position, Use.FUSION, epoch=1) for each in (framed, source)
        )
        assert torch.equal(tile, expected)
        assert np.array_equal(mask, where)
        assert rng.random() == generator.random()
    for batch, expected in zip(framed.good_batches(2), source.good_batches(2), strict=True):
        assert torch.equal(batch, expected)


def test_without_an_alignment_good_tiles_stay_where_they_are(part_tiles: Tiles, tmp_path: Path) -> None:
    source = synthetic(part_tiles)
    assert in_frame(source, folder=tmp_path) is source
