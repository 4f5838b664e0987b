import numpy as np
import torch

from training.synthetic import Synthetic, Tiles, Use, make_tiles
from training.textures import ProceduralTextures


def synthetic(tiles: Tiles, *, seed: int = 0) -> Synthetic:
    return Synthetic(tiles, ProceduralTextures(), seed)


def test_an_objects_foreground_is_the_part(part_tiles: Tiles) -> None:
    assert part_tiles.foregrounds.shape == (16, 64, 64)
    assert 0.5 < part_tiles.foregrounds.mean() < 0.6  # a plate of 48 x 48 on 64 x 64
    assert part_tiles.foregrounds[:, 32, 32].all()
    assert not part_tiles.foregrounds[:, 1, 1].any()


def test_a_texture_is_foreground_everywhere(part_tiles: Tiles) -> None:
    assert make_tiles(part_tiles.images, "texture").foregrounds.all()


def test_a_part_that_cannot_be_found_is_foreground_everywhere() -> None:
    even = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    assert make_tiles(even, "object").foregrounds.all()


def test_a_subset_keeps_images_and_foregrounds_together(part_tiles: Tiles) -> None:
    subset = part_tiles.subset([5, 2])
    assert len(subset) == 2
    for here, there in ((0, 5), (1, 2)):
        assert torch.equal(subset.images[here], part_tiles.images[there])
        assert np.array_equal(subset.foregrounds[here], part_tiles.foregrounds[there])


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
