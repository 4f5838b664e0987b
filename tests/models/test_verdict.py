import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.calibration import Calibration
from models.errors import ScoreError
from models.preprocess import PreprocessConfig
from models.verdict import Judgement, Region, failing_cells, judge, margin, regions

WHOLE = PreprocessConfig()
CROPPED = PreprocessConfig(image_size=224, resize=256)
CALIBRATION = Calibration(np.array([1.0, 2.0, 3.0], np.float32))


def verdict(score_map: np.ndarray, threshold: float, *, size: tuple[int, int] = (480, 640)) -> Judgement:
    return judge(
        float(score_map.max()), score_map, threshold=threshold, calibration=CALIBRATION, preprocess=WHOLE, size=size
    )


def flat(value: float = 1.0, *, peaks: dict[tuple[int, int], float] | None = None) -> np.ndarray:
    score_map = np.full((8, 8), value, np.float32)
    for place, peak in (peaks or {}).items():
        score_map[place] = peak
    return score_map


def test_a_score_at_the_threshold_passes_and_one_above_it_fails() -> None:
    at = verdict(flat(2.0), 2.0)
    assert (at.verdict, at.regions, at.score, at.threshold) == ("pass", (), 2.0, 2.0)
    assert at.p_value == CALIBRATION.p_value(2.0)
    above = verdict(flat(2.0), np.nextafter(2.0, 0))
    assert above.verdict == "fail"
    assert above.regions == (Region(box=(0, 0, 640, 480), area=640 * 480, peak=2.0),)


def test_the_smallest_excess_over_the_threshold_has_its_region() -> None:
    # The nearest float32 to 0.3 lies above 0.3: a comparison in float32 would call them equal.
    score_map = flat(0.1, peaks={(3, 5): 0.3})
    judged = verdict(score_map, 0.3, size=(40, 40))
    assert judged.verdict == "fail"
    (region,) = judged.regions
    assert region.peak == judged.score
    assert region.box == (27, 17, 1, 1)  # the centre of sample (3, 5), each of whose sides is 5 pixels long
    assert region.area == 1


@pytest.mark.parametrize("side", [7, 28, 49, 56])
def test_no_peak_is_lost_to_rounding(side: int) -> None:
    rng = np.random.default_rng(side)
    for row, column in rng.integers(0, side, (60, 2)):
        score_map = rng.random((side, side), np.float32)
        threshold = float(score_map.max()) + 0.1
        score_map[row, column] = np.nextafter(np.float32(threshold), np.float32(9))
        (region,) = verdict(score_map, threshold).regions
        assert region.peak == float(score_map[row, column])


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.float32, (5, 7), elements=st.floats(0, 100, width=32)),
    st.floats(0, 100),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([WHOLE, CROPPED]),
    st.one_of(st.none(), st.floats(0, 100)),
)
def test_a_fail_has_regions_inside_the_picture_and_a_pass_none(
    score_map: np.ndarray, threshold: float, size: tuple[int, int], preprocess: PreprocessConfig, pixel: float | None
) -> None:
    judged = judge(
        float(score_map.max()),
        score_map,
        threshold=threshold,
        calibration=CALIBRATION,
        preprocess=preprocess,
        size=size,
        pixel_threshold=pixel,
    )
    assert judged.verdict == ("fail" if judged.score > threshold else "pass")
    assert (judged.margin < 0) == (judged.verdict == "fail")
    assert (judged.verdict == "fail") == (len(judged.regions) > 0)
    if judged.regions:
        assert judged.regions[0].peak == judged.score
    for region in judged.regions:
        x, y, width, height = region.box
        assert 0 <= x < x + width <= size[1]
        assert 0 <= y < y + height <= size[0]
        assert 1 <= region.area <= width * height
        assert region.peak > threshold


def test_regions_come_by_peak_and_where_they_are() -> None:
    score_map = flat(0.0, peaks={(1, 6): 4.0, (6, 1): 9.0, (6, 2): 8.0})
    first, second = regions(score_map, 3.9, WHOLE, size=(160, 320))  # a sample is 40 wide and 20 high
    assert (first.peak, second.peak) == (9.0, 4.0)
    x, y, width, height = first.box
    assert 40 <= x < x + width <= 120  # across samples 1 and 2
    assert x + width > 80
    assert 120 <= y < y + height <= 140
    x, y, width, height = second.box
    assert 240 <= x < x + width <= 280
    assert 20 <= y < y + height <= 40


def test_boxes_follow_the_map_between_its_samples() -> None:
    wide = regions(flat(0.0, peaks={(4, 4): 10.0}), 1.0, WHOLE, size=(800, 800))[0]
    narrow = regions(flat(0.0, peaks={(4, 4): 10.0}), 9.0, WHOLE, size=(800, 800))[0]
    assert wide.box[2] == pytest.approx(180, abs=21)  # linear to 0 over 100 px on each side, so 90 px above 1
    assert narrow.box[2] == pytest.approx(20, abs=21)
    assert wide.area == pytest.approx(200**2 * 0.67, rel=0.1)  # where (1-u)(1-v) > 0.1: 0.9 - 0.1 ln 10 of a quadrant


def test_regions_that_meet_between_samples_are_one() -> None:
    assert len(regions(flat(0.0, peaks={(2, 2): 5.0, (3, 3): 5.0}), 1.0, WHOLE, size=(64, 64))) == 1
    assert len(regions(flat(0.0, peaks={(2, 2): 5.0, (2, 4): 5.0}), 1.0, WHOLE, size=(64, 64))) == 2


def test_a_centre_crop_keeps_regions_in_the_middle() -> None:
    everywhere = regions(flat(2.0), 1.0, CROPPED, size=(256, 512))
    assert everywhere == (Region(box=(32, 16, 448, 224), area=448 * 224, peak=2.0),)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_there_is_no_verdict_without_numbers(bad: float) -> None:
    score_map = flat()
    common = {"calibration": CALIBRATION, "preprocess": WHOLE, "size": (8, 8)}
    with pytest.raises(ScoreError, match="score"):
        judge(bad, score_map, threshold=1.0, **common)
    with pytest.raises(ScoreError, match="threshold"):
        judge(1.0, score_map, threshold=bad, **common)
    with pytest.raises(ScoreError, match="map"):
        judge(1.0, flat(peaks={(0, 0): bad}), threshold=1.0, **common)


@pytest.mark.parametrize("score", [0.5, 2.0])
def test_a_score_and_a_map_of_different_detections_give_no_verdict(score: float) -> None:
    score_map = flat(2.5 - score)
    with pytest.raises(ScoreError, match="one detection"):
        judge(score, score_map, threshold=1.0, calibration=CALIBRATION, preprocess=WHOLE, size=(8, 8))


def test_the_margin_is_the_share_of_the_threshold_that_is_left() -> None:
    assert verdict(flat(3.0), 4.0).margin == 0.25
    assert verdict(flat(4.0), 4.0).margin == 0
    assert verdict(flat(6.0), 4.0).margin == -0.5
    assert margin(0.0, 4.0) == 1


@pytest.mark.parametrize(("score", "threshold"), [(2.0, 0.0), (2.0, -1.0), (0.0, 0.0), (-2.0, -1.0), (1e9, 5e-324)])
def test_without_a_threshold_to_measure_by_the_margin_is_the_difference(score: float, threshold: float) -> None:
    assert margin(score, threshold) == threshold - score


def test_a_region_reaches_down_to_the_pixel_threshold() -> None:
    score_map = flat(0.0)
    score_map[1, 1:6] = 6.0  # a scratch that exceeds the threshold at one end only
    score_map[1, 5] = 9.0
    score_map[6, 1:6] = 6.0  # one that does so nowhere
    (small,) = regions(score_map, 8.0, WHOLE, size=(80, 80))
    (whole,) = regions(score_map, 8.0, WHOLE, size=(80, 80), pixel_threshold=5.0)
    assert small.box[0] >= 45
    assert small.box[2] <= 15
    assert whole.box[0] <= 14
    assert whole.box[0] + whole.box[2] >= 55
    assert whole.box[1] + whole.box[3] <= 24  # and not the other one
    assert small.area < whole.area <= 60 * 14
    assert whole.peak == small.peak == 9.0


def test_peaks_that_meet_above_the_pixel_threshold_are_one_region() -> None:
    score_map = flat(0.0, peaks={(3, 1): 9.0, (3, 2): 6.0, (3, 3): 8.5})
    assert [region.peak for region in regions(score_map, 8.0, WHOLE, size=(64, 64))] == [9.0, 8.5]
    assert [region.peak for region in regions(score_map, 8.0, WHOLE, size=(64, 64), pixel_threshold=5.0)] == [9.0]


def test_a_pixel_threshold_above_the_threshold_is_the_threshold() -> None:
    score_map = flat(0.0, peaks={(2, 2): 5.0, (6, 6): 9.0})
    plain = regions(score_map, 4.0, WHOLE, size=(64, 64))
    assert len(plain) == 2
    for pixel in (4.0, 7.0, 1e9, float("nan")):
        assert regions(score_map, 4.0, WHOLE, size=(64, 64), pixel_threshold=pixel) == plain


def test_the_failing_cells_are_the_regions_on_the_finer_grid() -> None:
    score_map = flat(0.0, peaks={(1, 1): 9.0, (1, 2): 6.0, (6, 6): 6.0})
    cells = failing_cells(score_map, 8.0, pixel_threshold=5.0)
    assert cells.shape == (40, 40)
    assert cells[7, 7]
    assert cells[7, 12]  # the centres of the samples
    assert not cells[32, 32]
    (region,) = regions(score_map, 8.0, WHOLE, size=(40, 40), pixel_threshold=5.0)
    assert region.area == cells.sum()
    assert not failing_cells(score_map, 9.0, pixel_threshold=5.0).any()
