"""Cutting pictures into tiles and putting their levels together again."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.backbone import build_backbone
from models.preprocess import Preprocess, PreprocessConfig
from models.tiling import cut, stitch


def pictures(b: int, side: int) -> Tensor:
    return torch.randint(0, 256, (b, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tiles", [1, 2, 3, 8])
def test_what_is_cut_and_stitched_is_what_it_was(tiles: int) -> None:
    levels = (pictures(2, 24 * tiles), pictures(2, 8 * tiles), pictures(2, tiles))
    first, second, third = (cut(level, tiles) for level in levels)
    assert first.shape == (2 * tiles * tiles, 3, 24, 24)
    for stitched, level in zip(stitch((first, second, third), tiles), levels, strict=True):
        assert torch.equal(stitched, level)


def test_tiles_come_picture_by_picture_and_row_by_row() -> None:
    batch = torch.arange(2 * 16).reshape(2, 1, 4, 4)
    assert cut(batch, 2)[:, 0].tolist() == [
        [[0, 1], [4, 5]],
        [[2, 3], [6, 7]],
        [[8, 9], [12, 13]],
        [[10, 11], [14, 15]],
        [[16, 17], [20, 21]],
        [[18, 19], [22, 23]],
        [[24, 25], [28, 29]],
        [[26, 27], [30, 31]],
    ]


def test_levels_of_tiles_are_those_of_the_picture_up_to_the_tiles_edges() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("resnet18").eval()
    preprocess = Preprocess(PreprocessConfig(image_size=192, tiles=2))
    batch = pictures(1, 24)[:, :, :, :].repeat_interleave(16, 2).repeat_interleave(16, 3)
    with torch.inference_mode():
        whole = backbone(preprocess(batch))
        tiled = stitch(backbone(preprocess(cut(batch, 2))), 2)
    for one, other in zip(whole, tiled, strict=True):
        assert one.shape == other.shape
    # Level 1 of a ResNet-18 sees 21 pixels to either side, so what is 6 of its positions off an edge is the same.
    inside = slice(6, 42)
    assert torch.allclose(whole[0][..., inside, inside], tiled[0][..., inside, inside], atol=1e-5)
    assert not torch.allclose(whole[0], tiled[0], atol=1e-5)


def test_a_small_defect_is_seen_at_its_own_size() -> None:
    picture = torch.zeros(896, 896, 3, dtype=torch.uint8).numpy()
    picture[300:304, 500:504] = 255
    seen = {tiles: Preprocess(PreprocessConfig(tiles=tiles)).resize(picture) for tiles in (1, 4)}
    assert int(seen[1].max()) < 200
    pieces = cut(seen[4].unsqueeze(0), 4)
    assert pieces.shape == (16, 3, 224, 224)
    assert pieces.flatten(1).amax(1).nonzero().flatten().tolist() == [6]  # the third of the second row
    assert (pieces[6, :, 76:80, 52:56] == 255).all()


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="9x9 cannot be cut into 2x2"):
        cut(pictures(1, 9), 2)
    with pytest.raises(ValueError, match="6 tiles do not make whole pictures of 2x2"):
        stitch((pictures(6, 4), pictures(6, 2), pictures(6, 1)), 2)


def test_a_batch_without_pictures_and_memory_in_another_order() -> None:
    assert cut(pictures(0, 8), 2).shape == (0, 3, 4, 4)
    batch = F.pad(pictures(2, 6), (1, 1, 1, 1)).contiguous(memory_format=torch.channels_last)
    assert torch.equal(cut(batch, 4), cut(batch.contiguous(), 4))
