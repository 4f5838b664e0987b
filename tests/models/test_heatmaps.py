import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.heatmaps import encode_png, render
from models.images import decode
from models.preprocess import PreprocessConfig
from models.verdict import regions

WHOLE = PreprocessConfig()
CROPPED = PreprocessConfig(image_size=224, resize=256)
SIZE = (60, 100)
THRESHOLD = 10.0


def hot(value: float, *, elsewhere: float = 2.0) -> np.ndarray:
    score_map = np.full((6, 10), elsewhere, np.float32)
    score_map[1:3, 6:9] = value
    return score_map


def test_colours_are_relative_to_the_threshold_not_to_the_map() -> None:
    def colour(score: float) -> tuple[float, ...]:
        flat = render("heat", np.full((4, 4), score, np.float32), THRESHOLD, WHOLE, size=SIZE)
        assert flat.shape == (*SIZE, 3)
        assert flat.dtype == np.uint8
        return tuple(np.median(flat, axis=(0, 1)).tolist())

    red, green, blue = colour(0.4 * THRESHOLD)
    assert blue > 150 > red  # what good parts look like
    red, green, blue = colour(THRESHOLD)
    assert green > max(red, blue)
    red, green, blue = colour(1.8 * THRESHOLD)
    assert red > 150 > max(green, blue)
    assert colour(2 * THRESHOLD) == colour(50 * THRESHOLD)


def test_a_mask_marks_what_lies_above() -> None:
    mask = render("mask", hot(30.0), THRESHOLD, WHOLE, size=SIZE)
    assert mask.shape == SIZE
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[10:30, 60:90] == 255).all()
    assert (mask[:4] == 0).all()
    assert (mask[:, :50] == 0).all()
    assert not render("mask", hot(THRESHOLD), THRESHOLD, WHOLE, size=SIZE).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), SIZE, (301, 97)])
def test_a_mask_shows_the_narrowest_peak(size: tuple[int, int]) -> None:
    score_map = np.zeros((56, 56), np.float32)
    score_map[10, 40] = np.nextafter(np.float32(THRESHOLD), np.float32(99))
    mask = render("mask", score_map, THRESHOLD, WHOLE, size=size)
    assert mask.sum() == 255
    assert mask[int(10.5 / 56 * size[0]), int(40.5 / 56 * size[1])] == 255


def test_nothing_is_marked_outside_a_crop() -> None:
    mask = render("mask", np.full((4, 4), 30, np.float32), THRESHOLD, CROPPED, size=(256, 512))
    assert (mask[16:240, 32:480] == 255).all()
    assert mask.sum() == 224 * 448 * 255


@settings(max_examples=100, deadline=None)
@given(arrays(np.float32, (3, 4), elements=st.sampled_from([0, 9.5, 10, 10.5])), st.sampled_from([WHOLE, CROPPED]))
def test_a_mask_is_empty_if_and_only_if_the_part_passes(score_map: np.ndarray, preprocess: PreprocessConfig) -> None:
    mask = render("mask", score_map, THRESHOLD, preprocess, size=(29, 31))
    assert mask.any() == (score_map.max() > THRESHOLD)


def test_an_overlay_keeps_the_picture_where_it_is_calm() -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    before = image.copy()
    overlay = render("overlay", hot(30.0), THRESHOLD, WHOLE, size=SIZE, image=image)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(overlay[:, :50], image[:, :50])
    inside = overlay[18:22, 72:78].astype(int) - image[18:22, 72:78]
    assert np.abs(inside).mean() > 30
    calm = render("overlay", hot(4.0), THRESHOLD, WHOLE, size=SIZE, image=image)
    np.testing.assert_array_equal(calm, image)


def test_an_overlay_outlines_what_lies_above() -> None:
    grey = np.full((*SIZE, 3), 128, np.uint8)
    white = (render("overlay", hot(11.0), THRESHOLD, WHOLE, size=SIZE, image=grey) == 255).all(axis=2)
    mask = render("mask", hot(11.0), THRESHOLD, WHOLE, size=SIZE) > 0
    assert white[mask].any()
    assert not white[~mask].any()
    assert not (render("overlay", hot(9.0), THRESHOLD, WHOLE, size=SIZE, image=grey) == 255).all(axis=2).any()


def test_an_overlay_of_a_large_picture_is_the_same_in_bands() -> None:
    score_map = hot(8.0, elsewhere=6.0)  # below the threshold: no outlines, whose width follows the size
    image = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    overlay = render("overlay", score_map, THRESHOLD, WHOLE, size=(1500, 2000), image=image)
    heat = render("heat", score_map, THRESHOLD, WHOLE, size=(1500, 2000))
    for row in (0, 700, 1047, 1048, 1049, 1499):
        share = (overlay[row].astype(float) - image[row]) / np.where(
            heat[row] == image[row], np.nan, heat[row] - 1.0 * image[row]
        )
        assert 0.03 < np.nanmedian(share) < 0.25


def test_an_overlay_needs_its_picture() -> None:
    for image in (None, np.zeros((60, 99, 3), np.uint8), np.zeros(SIZE, np.uint8)):
        with pytest.raises(ValueError, match="overlay needs the picture"):
            render("overlay", hot(1.0), THRESHOLD, WHOLE, size=SIZE, image=image)


def test_png_bytes_keep_every_pixel_and_the_channel_order() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode_png(rgb)), rgb)
    grey = rgb[:, :, 0]
    np.testing.assert_array_equal(decode(encode_png(grey)), np.repeat(grey[:, :, None], 3, axis=2))


def test_a_mask_compares_as_the_verdict_does() -> None:
    # The nearest float32 to 0.3 lies above 0.3, that to 0.7 below 0.7.
    assert render("mask", np.full((4, 4), 0.3, np.float32), 0.3, WHOLE, size=SIZE).all()
    assert not render("mask", np.full((4, 4), 0.7, np.float32), 0.7, WHOLE, size=SIZE).any()


def test_a_mask_is_the_regions_down_to_the_pixel_threshold() -> None:
    score_map = np.zeros((8, 8), np.float32)
    score_map[1, 1:6], score_map[1, 5] = 6.0, 9.0
    score_map[6, 1:6] = 6.0  # above the pixel threshold, and not part of a region
    (region,) = regions(score_map, 8.0, WHOLE, size=(400, 800), pixel_threshold=3.0)
    mask = render("mask", score_map, 8.0, WHOLE, size=(400, 800), pixel_threshold=3.0) > 0
    rows, columns = np.nonzero(mask)
    x, y, width, height = region.box
    assert (columns.min(), columns.max() + 1) == pytest.approx((x, x + width), abs=21)  # a fine cell is 20 wide
    assert (rows.min(), rows.max() + 1) == pytest.approx((y, y + height), abs=11)
    assert mask.sum() == pytest.approx(region.area, rel=0.15)
    grey = np.full((400, 800, 3), 128, np.uint8)
    drawn = render("overlay", score_map, 8.0, WHOLE, size=(400, 800), image=grey, pixel_threshold=3.0)
    white = (drawn == 255).all(axis=2)
    assert white[:200, 100:400].any()
    assert not white[200:].any()


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float32, (5, 7), elements=st.floats(0, 100, width=32)),
    st.floats(0, 100),
    st.floats(0, 100),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([WHOLE, CROPPED]),
)
def test_a_mask_is_empty_if_and_only_if_there_is_no_region(
    score_map: np.ndarray, threshold: float, pixel: float, size: tuple[int, int], preprocess: PreprocessConfig
) -> None:
    mask = render("mask", score_map, threshold, preprocess, size=size, pixel_threshold=pixel)
    assert mask.any() == (len(regions(score_map, threshold, preprocess, size=size, pixel_threshold=pixel)) > 0)
    plain = render("mask", score_map, threshold, preprocess, size=size)
    assert not (plain > mask).any()
