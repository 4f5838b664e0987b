"""From a score and a map to a verdict (seed, step 6): pass or fail, and which regions of the picture fail.

A fail has at least one region and a pass has none, by construction: the score is the map's maximum, and
regions are found on a refinement of the map's own grid that keeps every sample of the map exactly. (Found
among the picture's pixels instead, a peak between two pixel centres could get lost.) What is above the threshold
decides; how far a region reaches from there may follow a lower value, so that it shows the whole defect.
"""

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from models.calibration import Calibration
from models.errors import ScoreError
from models.preprocess import PreprocessConfig, covered_box, locate

# Odd, so that each sample of the map is the centre of one of the finer cells. Boxes come out this much finer.
REFINEMENT = 5
_WHOLE = PreprocessConfig()  # no crop: `locate` spreads the map over the whole of the finer grid


@dataclass(frozen=True)
class Region:
    """A connected part of the map around a sample above the threshold, in pixels of the picture as it is looked at.

    `box` is (x, y, width, height), `area` its number of pixels, `peak` its highest score.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float


@dataclass(frozen=True)
class Judgement:
    """The verdict and what it rests on. `p_value`: how often a good part scores at least as high."""

    verdict: Literal["pass", "fail"]
    score: float
    threshold: float
    p_value: float
    regions: tuple[Region, ...]

    @property
    def margin(self) -> float:
        """How far the score is from failing; see `margin`."""
        return margin(self.score, self.threshold)


def margin(score: float, threshold: float) -> float:
    """(threshold - score) / threshold: the share of the threshold that is left (positive), or exceeded (negative).

    1 for a part exactly like the good ones, 0 at the threshold, -1 at twice the threshold. Where the threshold is
    no positive number to be measured by, which distances do not give, it is the difference itself.
    """
    room = threshold - score
    share = room / threshold if threshold > 0 else room
    return share if math.isfinite(share) else room


def judge(
    score: float,
    score_map: NDArray[np.float32],
    *,
    threshold: float,
    calibration: Calibration,
    preprocess: PreprocessConfig,
    size: tuple[int, int],
    pixel_threshold: float | None = None,
) -> Judgement:
    """Fail a picture of `size` (height, width) if and only if its score exceeds the threshold.

    Regions reach down to `pixel_threshold`, see `regions`; the verdict does not depend on it. Raises ScoreError
    where it cannot be told: values that are not finite, or a map that contradicts the score.
    """
    if not math.isfinite(score):
        raise ScoreError(f"The score is {score}: there is no verdict. Train the category again.")
    if not math.isfinite(threshold):
        raise ScoreError(f"The threshold is {threshold}: there is no verdict. Set a finite one.")
    if not np.isfinite(score_map).all():
        raise ScoreError("The map holds values that are not finite: there is no verdict. Train the category again.")
    failed = score > threshold
    if failed != (float(score_map.max()) > threshold):
        raise ScoreError(
            f"The score {score} and its map's maximum {float(score_map.max())} lie on different sides of the "
            f"threshold {threshold}: there is no verdict. They must come from one detection."
        )
    return Judgement(
        verdict="fail" if failed else "pass",
        score=score,
        threshold=threshold,
        p_value=calibration.p_value(score),
        regions=regions(score_map, threshold, preprocess, size=size, pixel_threshold=pixel_threshold) if failed else (),
    )


def regions(
    score_map: NDArray[np.float32],
    threshold: float,
    preprocess: PreprocessConfig,
    *,
    size: tuple[int, int],
    pixel_threshold: float | None = None,
) -> tuple[Region, ...]:
    """The failing regions of a map (h', w'), highest peak first; () if there are none.

    A region is a connected part of the map above `pixel_threshold` that holds a sample above `threshold` (hysteresis
    thresholding). Without a `pixel_threshold`, or with one above `threshold`, it is `threshold` itself.
    """
    labels, stats, peaks = _components(score_map, threshold, pixel_threshold)
    box = covered_box(preprocess, size)
    found = [
        _in_picture(stats[label], float(peaks[label]), labels.shape, box=box, size=size)
        for label in np.flatnonzero(peaks > threshold)
    ]
    return tuple(sorted(found, key=lambda region: (-region.peak, region.box)))


def failing_cells(
    score_map: NDArray[np.float32], threshold: float, *, pixel_threshold: float | None = None
) -> NDArray[np.bool_]:
    """Where the regions of a map (h', w') lie on its finer grid (`REFINEMENT` h', `REFINEMENT` w'), to draw them."""
    labels, _, peaks = _components(score_map, threshold, pixel_threshold)
    failing: NDArray[np.bool_] = (peaks > threshold)[labels]
    return failing


def reach(threshold: float, pixel_threshold: float | None) -> float:
    """The value that regions reach down to: never above the threshold, or a peak could be outside of its region."""
    return threshold if pixel_threshold is None else min(threshold, pixel_threshold)


def _components(
    score_map: NDArray[np.float32], threshold: float, pixel_threshold: float | None
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Connected parts of the finer grid: its labels, cv2's statistics and the highest sample of each label."""
    fine = _refine(score_map) > reach(threshold, pixel_threshold)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(fine.astype(np.uint8), connectivity=8)
    peaks = np.full(count, -np.inf)
    # In float64: numpy would round the threshold to the map's float32, and a score just above it would be lost.
    np.maximum.at(peaks, labels[_centres()].astype(np.intp), score_map.astype(np.float64))
    peaks[0] = -np.inf  # what is outside of all of them
    return np.asarray(labels, np.int32), np.asarray(stats, np.int32), peaks


def _refine(score_map: NDArray[np.float32]) -> NDArray[np.float64]:
    height, width = score_map.shape
    fine = locate(score_map, _WHOLE, (height * REFINEMENT, width * REFINEMENT)).astype(np.float64)
    fine[_centres()] = score_map  # exactly, whatever interpolation has rounded
    return fine


def _centres() -> tuple[slice, slice]:
    """Where the finer grid holds the samples of the map."""
    every = slice(REFINEMENT // 2, None, REFINEMENT)
    return every, every


def _in_picture(
    stats: NDArray[np.int32],
    peak: float,
    grid: tuple[int, ...],
    *,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
) -> Region:
    """One row of cv2's component statistics, on a grid that covers `box`, in pixels rounded outwards."""
    x0, y0, x1, y1 = box
    cell_width, cell_height = (x1 - x0) / grid[1], (y1 - y0) / grid[0]
    left, right = _outwards(x0, cell_width, stats[cv2.CC_STAT_LEFT], stats[cv2.CC_STAT_WIDTH], size[1])
    top, bottom = _outwards(y0, cell_height, stats[cv2.CC_STAT_TOP], stats[cv2.CC_STAT_HEIGHT], size[0])
    area = round(int(stats[cv2.CC_STAT_AREA]) * cell_width * cell_height)
    return Region(
        box=(left, top, right - left, bottom - top),
        area=max(1, min(area, (right - left) * (bottom - top))),
        peak=peak,
    )


def _outwards(origin: float, cell: float, first: int, count: int, limit: int) -> tuple[int, int]:
    """Cells along one axis -> first pixel and the one after the last, at least one pixel inside the picture."""
    start = min(max(math.floor(origin + first * cell), 0), limit - 1)
    stop = max(min(math.ceil(origin + (first + count) * cell), limit), start + 1)
    return start, stop
