"""From distances to thresholds: maps of good images, and the rule applied to their scores (seed, step 6.2).

`train_max` is the source's rule, the largest score of the training images under their own Gaussian: far too
low, since a Gaussian knows the images it was made of. `conformal` takes a quantile of out-of-sample scores.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.alignment import Pose
from models.calibration import Calibration, attainable_alpha
from models.detector import Detector
from models.manifest import ThresholdRecord
from training.recipe import CalibrationSection

_AT_ONCE = 64  # maps
_EVERY = 17  # pixels, which runs over all columns: enough for a quantile of all good images' pixels
_PIXEL_QUANTILE = 0.995  # of good parts' pixels: what is as unusual, next to something that fails, belongs to it


@dataclass(frozen=True)
class GoodScores:
    """Scores (n,) of good images, the maxima of their maps, and a sample of all the maps' pixels, flat."""

    images: Tensor
    pixels: Tensor

    @property
    def pixel_threshold(self) -> float:
        """What 99.5 % of the pixels do not exceed."""
        rank = int(_PIXEL_QUANTILE * (len(self.pixels) - 1))
        return float(self.pixels.kthvalue(rank + 1).values)


@torch.inference_mode()
def good_scores(maps: Tensor, pose: Pose | None, detector: Detector) -> GoodScores:
    """What the detector makes of a scorer's maps (n, h, w) of good images; of the pixels one in 17, if not ignored."""
    keep = detector.smoothing.keep
    images, pixels = [], []
    for start in range(0, len(maps), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        finished = detector.finish(maps[some], None if pose is None else pose.of(some))  # (b, h', w')
        images.append(finished.flatten(1).amax(1))
        seen = finished.flatten(1) if keep is None else finished[:, keep]
        pixels.append(seen[:, :: max(1, min(_EVERY, seen.shape[1] // 64))].flatten().clone())
    return GoodScores(torch.cat(images), torch.cat(pixels))


def threshold(
    section: CalibrationSection, *, in_sample: Tensor, out_of_sample: Tensor, different: int, pixel: float
) -> tuple[ThresholdRecord, str | None]:
    """The threshold by the recipe's rule, and a warning where there are too few images for the wished rate.

    `in_sample` and `out_of_sample` are image scores (n,), of which `different` are of images that do not look alike;
    `pixel` is how far down defect regions would reach.
    """
    if section.rule == "train_max":
        highest = float(in_sample.max())
        record = ThresholdRecord(rule="train_max", value=highest, false_reject_rate=None, pixel=min(pixel, highest))
        return record, (
            "the rule train_max takes the training images' own scores, which are far lower than those of unseen good "
            'parts: expect most good parts to be rejected (rule = "conformal" does not have this fault)'
        )
    calibration = Calibration(out_of_sample)
    alpha = section.false_reject_rate
    attainable = attainable_alpha(different)
    promised = max(alpha, attainable)  # the record says what holds, not what was wished
    value = calibration.threshold(promised)
    record = ThresholdRecord(rule="conformal", value=value, false_reject_rate=promised, pixel=min(pixel, value))
    if promised == alpha:
        return record, None
    return record, (
        f"{different} good images cannot vouch for a false-reject rate of {alpha:g}: the largest score is the "
        f"threshold, good for {attainable:.3f}. About {round(1 / alpha)} images would do"
    )
