"""The only resize of the project, its normalisation, and the way back from a map to the picture."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from models.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, PreprocessConfig, covered_box, locate

Picture = NDArray[np.uint8]
SMALL = Preprocess(PreprocessConfig(image_size=64))
CROPPED = PreprocessConfig(image_size=224, resize=256)
EDGES = st.integers(1, 60)


def noise(height: int, width: int) -> Picture:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> Picture:
    """Every pixel differs from its mirror images, in every channel."""
    y, x = np.mgrid[0 : 1 : complex(0, height), 0 : 1 : complex(0, width)]
    return np.stack([250 * x, 250 * y, 125 * x + 60 * y], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (7, 3), (64, 64), (63, 65), (480, 640), (2000, 30)])
def test_any_size_becomes_a_square_tile(size: tuple[int, int]) -> None:
    tile = SMALL.resize(noise(*size))
    assert tile.shape == (3, 64, 64)
    assert tile.dtype == torch.uint8
    assert tile.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("size", [(37, 53), (128, 96), (301, 470), (64, 200)])
def test_resizing_agrees_with_pillow(size: tuple[int, int]) -> None:
    picture = noise(*size)
    peer = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR))
    mine = SMALL.resize(picture).permute(1, 2, 0).numpy()
    assert np.abs(mine.astype(int) - peer.astype(int)).max() <= 1


def test_fine_patterns_are_averaged_and_not_sampled() -> None:
    checkers = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    tile = SMALL.resize(np.repeat(checkers[:, :, None], 3, axis=2))
    assert int(tile.min()) >= 125
    assert int(tile.max()) <= 130


def test_a_picture_of_the_right_size_is_untouched_in_place_and_in_channel_order() -> None:
    picture = noise(64, 64)
    assert np.array_equal(SMALL.resize(picture).numpy(), picture.transpose(2, 0, 1))


def test_rgb_in_is_rgb_out_and_nothing_is_turned() -> None:
    tile = SMALL.resize(smooth(90, 120)).int()
    red, green, blue = tile
    assert (red[:, 1:] >= red[:, :-1]).all()
    assert red[0, -1] > 240 > 10 > red[-1, 0]
    assert green[-1, 0] > 240 > 10 > green[0, -1]
    assert 100 < blue[0, -1] < 130 < 180 < blue[-1, -1] < 190


def test_views_are_read_as_they_are_seen() -> None:
    picture = smooth(50, 70)
    wanted = SMALL.resize(np.ascontiguousarray(picture[::-1, ::2]))
    assert torch.equal(SMALL.resize(picture[::-1, ::2]), wanted)
    picture.flags.writeable = False
    SMALL.resize(picture)


def test_the_tile_does_not_share_memory_with_the_picture() -> None:
    picture = noise(64, 64)
    tile = SMALL.resize(picture)
    before = tile.clone()
    picture[:] = 0
    assert torch.equal(tile, before)


def test_only_pictures_that_torch_cannot_read_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[NDArray[np.uint8]] = []
    real = torch.from_numpy
    monkeypatch.setattr(torch, "from_numpy", lambda array: read.append(array) or real(array))
    picture = noise(50, 70)
    SMALL.resize(picture)
    SMALL.resize(picture[::-1])
    picture.flags.writeable = False
    SMALL.resize(picture)
    assert [np.shares_memory(array, picture) for array in read] == [True, False, False]


def test_normalisation_uses_imagenets_constants_channel_by_channel() -> None:
    batch = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = SMALL(batch)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert IMAGENET_MEAN == (0.485, 0.456, 0.406)
    assert IMAGENET_STD == (0.229, 0.224, 0.225)
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        wanted = (batch[:, channel].double() / 255 - mean) / std
        assert torch.allclose(out[:, channel].double(), wanted, atol=1e-6)


def test_the_crop_is_the_centre_of_the_squashed_picture() -> None:
    picture = noise(300, 400)
    whole = Preprocess(PreprocessConfig(image_size=256)).resize(picture)
    assert torch.equal(Preprocess(CROPPED).resize(picture), whole[:, 16:240, 16:240])


@pytest.mark.parametrize("config", [PreprocessConfig(image_size=64), PreprocessConfig(image_size=64, resize=81)])
def test_masks_follow_the_picture(config: PreprocessConfig) -> None:
    preprocess = Preprocess(config)
    mask = np.zeros((300, 400), bool)
    mask[90:210, 100:200] = True
    small = preprocess.resize_mask(mask)
    assert small.dtype == torch.bool
    as_picture = preprocess.resize(np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2))
    assert torch.equal(small, as_picture[0] >= 128)
    x0, y0, x1, y1 = covered_box(config, mask.shape)
    share = (120 * 100) / ((x1 - x0) * (y1 - y0))
    assert small.float().mean().item() == pytest.approx(share, rel=0.08)


def test_a_mask_pixel_needs_half_of_its_area() -> None:
    mask = np.zeros((64, 640), bool)
    mask[:, :324] = True  # 0.4 of the pixel in column 32
    assert not SMALL.resize_mask(mask)[:, 32].any()
    mask[:, :327] = True  # 0.7 of it
    assert SMALL.resize_mask(mask)[:, 32].all()


def test_a_thin_mask_does_not_vanish() -> None:
    preprocess = Preprocess(PreprocessConfig())
    scratch = np.zeros((1024, 1024), bool)
    scratch[100:900, 500:502] = True  # 2 of the 4.6 pixels that make one
    rows, columns = preprocess.resize_mask(scratch).nonzero(as_tuple=True)
    assert set(columns.tolist()) == {109}  # 501 * 224 / 1024 = 109.6
    assert rows.min() in range(20, 26)  # 100 * 224 / 1024 = 21.9
    assert rows.max() in range(193, 199)  # 900 * 224 / 1024 = 196.9
    speck = np.zeros((4000, 4000), bool)
    speck[3000, 1000] = True
    assert preprocess.resize_mask(speck).nonzero().tolist() == [[168, 56]]


def test_a_mask_without_a_pixel_in_sight_stays_empty() -> None:
    assert not SMALL.resize_mask(np.zeros((640, 640), bool)).any()
    corner = np.zeros((1024, 1024), bool)
    corner[:2, :2] = True
    assert not Preprocess(CROPPED).resize_mask(corner).any()


@settings(max_examples=60, deadline=None)
@given(EDGES, EDGES, st.data())
def test_no_mask_becomes_empty(height: int, width: int, data: st.DataObject) -> None:
    mask = np.zeros((height * 9, width * 9), bool)
    mask[data.draw(st.integers(0, height * 9 - 1)), data.draw(st.integers(0, width * 9 - 1))] = True
    assert SMALL.resize_mask(mask).any()


def test_the_covered_box_is_the_whole_picture_or_the_crop() -> None:
    assert covered_box(PreprocessConfig(), (480, 640)) == (0, 0, 640, 480)
    assert covered_box(CROPPED, (512, 1024)) == (64, 32, 960, 480)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, st.tuples(EDGES, EDGES), elements=st.floats(-5, 5, width=32)), st.tuples(EDGES, EDGES))
def test_locating_is_torchs_bilinear_interpolation(score_map: NDArray[np.float32], size: tuple[int, int]) -> None:
    located = locate(score_map, PreprocessConfig(), size)
    assert located.dtype == np.float32
    peer = F.interpolate(torch.from_numpy(score_map).double()[None, None], size, mode="bilinear", align_corners=False)
    assert np.allclose(located, peer[0, 0].numpy(), atol=1e-5)


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.float32, st.tuples(EDGES, EDGES), elements=st.floats(-1e6, 1e6, width=32), fill=st.just(0.1)),
    st.tuples(EDGES, EDGES),
    st.sampled_from([PreprocessConfig(), CROPPED]),
)
def test_no_located_value_leaves_the_maps_range(
    score_map: NDArray[np.float32], size: tuple[int, int], config: PreprocessConfig
) -> None:
    located = locate(score_map, config, size)
    assert located.shape == size
    assert located.max() <= score_map.max()
    assert located.min() >= score_map.min()


def test_a_flat_map_stays_exactly_flat() -> None:
    flat = np.full((56, 56), 0.1, np.float32)
    assert (locate(flat, PreprocessConfig(), (479, 641)) == np.float32(0.1)).all()


def test_outside_the_crop_is_the_minimum() -> None:
    score_map = np.full((56, 56), 5, np.float32)
    score_map[30, 30] = 2
    located = locate(score_map, CROPPED, (512, 1024))
    seen = np.zeros((512, 1024), bool)
    seen[32:480, 64:960] = True
    assert (located[~seen] == 2).all()
    assert (located[32:150, 64:960] == 5).all()


@pytest.mark.parametrize(
    "config",
    [PreprocessConfig(), CROPPED, PreprocessConfig(image_size=192, resize=255)],
    ids=["whole", "crop", "odd crop"],
)
@pytest.mark.parametrize("place", [(200, 150), (120, 600), (400, 410)])
def test_what_is_seen_in_the_tile_is_located_where_it_is(config: PreprocessConfig, place: tuple[int, int]) -> None:
    picture = np.zeros((500, 750, 3), np.uint8)
    picture[place[0] - 12 : place[0] + 12, place[1] - 12 : place[1] + 12] = 255
    tile = Preprocess(config).resize(picture)[0].float().numpy()
    located = locate(tile, config, picture.shape[:2])
    ys, xs = np.nonzero(located > 128)
    assert (ys.min(), xs.min()) == pytest.approx((place[0] - 12, place[1] - 12), abs=2)
    assert (ys.max(), xs.max()) == pytest.approx((place[0] + 11, place[1] + 11), abs=2)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"image_size": 100}, "multiple of 32, not 100"),
        ({"image_size": 0}, "greater than or equal to 32"),
        ({"image_size": 65536}, "less than or equal to 2048"),
        ({"image_size": 224, "resize": 223}, r"resize \(223\) must not be smaller than image_size \(224\)"),
        ({"std": (0.2, 0.0, 0.2)}, "std must be positive"),
        ({"std": (0.2, float("nan"), 0.2)}, "finite number"),
        ({"mean": (0.2, float("inf"), 0.2)}, "finite number"),
        ({"mean": (0.2, 0.2)}, "mean"),
        ({"size": 224}, "size"),
        ({"tiles": 0}, "greater than or equal to 1"),
        ({"tiles": 9}, "less than or equal to 8"),
        ({"tiles": 2, "resize": 256}, r"resize \(256\) cuts out the centre, which tiles \(2\) do not"),
        ({"tiles": 3, "image_size": 2048}, "at most 4096, half of that where parts are aligned, not 6144"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        PreprocessConfig(**fields)  # type: ignore[arg-type]


def test_a_tiled_picture_is_squashed_to_all_its_tiles() -> None:
    tiled = PreprocessConfig(image_size=64, tiles=3)
    whole = Preprocess(PreprocessConfig(image_size=192))
    assert (tiled.side, whole.config.side, CROPPED.side) == (192, 192, 224)
    picture, mask = noise(300, 400), np.zeros((300, 400), bool)
    mask[90:210, 100:200] = True
    assert torch.equal(Preprocess(tiled).resize(picture), whole.resize(picture))
    assert torch.equal(Preprocess(tiled).resize_mask(mask), whole.resize_mask(mask))
    assert covered_box(tiled, (300, 400)) == (0, 0, 400, 300)
    score_map = np.random.default_rng(0).random((48, 48), np.float32)
    assert np.array_equal(locate(score_map, tiled, (300, 400)), locate(score_map, whole.config, (300, 400)))


def test_settings_from_before_there_were_tiles_are_of_one() -> None:
    assert PreprocessConfig.model_validate({"image_size": 64}).tiles == 1
    assert PreprocessConfig(image_size=64, resize=80, tiles=1).side == 64


def test_the_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        PreprocessConfig().image_size = 256  # type: ignore[misc]
