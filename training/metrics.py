"""How well scores and maps tell defects from good: AUROC and AUPRO, exact, from numpy arrays.

Every distinct score is a threshold and ties count half; nothing is binned. A figure that is not defined (only
good parts, or none; no defect pixel) is None, never a made-up number.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating[Any]]
Truth = NDArray[np.bool_]


def image_auroc(scores: Scores, truth: Truth) -> float | None:
    """Chance that a defective image (truth) scores higher than a good one: scores (n,), truth (n,)."""
    return _auroc(scores[truth], scores[~truth])


def pixel_auroc(maps: Scores, masks: Truth) -> float | None:
    """The same over all pixels of all images: maps (n, h, w), masks (n, h, w)."""
    return _auroc(maps[masks], maps[~masks])


def roc(scores: Scores, truth: Truth) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates at every distinct threshold, from (0, 0) to (1, 1), to be drawn."""
    thresholds = np.unique(scores)[::-1]
    rates = []
    for group in (scores[~truth], scores[truth]):
        ordered = np.sort(group)
        at_least = len(ordered) - np.searchsorted(ordered, thresholds, side="left")
        rates.append(np.concatenate([[0.0], at_least / max(len(ordered), 1)]))
    return rates[0], rates[1]


def aupro(maps: Scores, masks: Truth, *, limit: float = 0.3) -> float | None:
    """Area under the per-region overlap curve up to a false positive rate of `limit`, divided by `limit`.

    Maps (n, h, w), masks (n, h, w). The overlap at a threshold is the covered share of each connected defect
    (8 neighbours), averaged over all of them, so that small defects weigh as much as large ones; the false
    positive rate is that of all defect-free pixels (Bergmann et al., MVTec AD, IJCV 2021).
    """
    positive, negative = maps[masks], np.sort(maps[~masks])
    if len(positive) == 0 or len(negative) == 0:
        return None
    order = np.argsort(positive)
    ordered = positive[order]
    covered = np.concatenate([[0.0], np.cumsum(_region_weights(masks)[order])])  # by the lowest i pixels

    def overlap(thresholds: Scores, side: Any) -> NDArray[np.float64]:
        """Covered share at thresholds, with the scores equal to them (left) or without (right)."""
        return np.asarray(covered[-1] - covered[np.searchsorted(ordered, thresholds, side=side)])

    # The integral over the false positive rate is a sum over the negatives it passes, from the highest down.
    # Among equal scores the curve is a straight line, from without them to with them: its mean counts for each.
    width = limit * len(negative)
    last = negative[-int(np.ceil(width))]  # where the limit is reached, within a group of equal scores or not
    above = negative[np.searchsorted(negative, last, side="right") :]
    area = float((overlap(above, "left") + overlap(above, "right")).sum() / 2)
    ties = len(negative) - len(above) - int(np.searchsorted(negative, last, side="left"))
    start, end = float(overlap(last, "right")), float(overlap(last, "left"))
    rest = width - len(above)
    area += rest * start + (end - start) * rest**2 / (2 * ties)
    return area / width


def _auroc(positive: Scores, negative: Scores) -> float | None:
    if len(positive) == 0 or len(negative) == 0:
        return None
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left").sum(dtype=np.float64)
    up_to = np.searchsorted(ordered, positive, side="right").sum(dtype=np.float64)
    return float((below + up_to) / 2 / len(positive) / len(negative))


def _region_weights(masks: Truth) -> NDArray[np.float64]:
    """For each pixel of `masks[masks]`, its share in the mean overlap: 1 / (its region's area x all regions)."""
    shares, regions = [], 0
    for mask in masks[masks.any(axis=(1, 2))]:
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        shares.append(1 / stats[labels[mask], cv2.CC_STAT_AREA].astype(np.float64))
        regions += count - 1
    return np.concatenate(shares) / regions
