"""From distances to a threshold: image scores of good images, and the rule applied to them (seed, step 6.2).

`train_max` is the source's rule, the largest score of the training images under their own Gaussian: far too
low, since a Gaussian knows the images it was made of. `conformal` takes a quantile of out-of-sample scores.
"""

import torch
from torch import Tensor

from models.calibration import Calibration
from models.manifest import ThresholdRecord
from models.smoothing import Smoothing
from training.recipe import CalibrationSection


@torch.inference_mode()
def image_scores(distances: Tensor, smoothing: Smoothing, grid: tuple[int, int]) -> Tensor:
    """Distances (n, p) -> scores (n,), by the detector's own smoothing and maximum."""
    return torch.cat([smoothing(part.view(-1, *grid)).flatten(1).amax(1) for part in distances.split(64)])


def threshold(
    section: CalibrationSection, *, in_sample: Tensor, out_of_sample: Tensor
) -> tuple[ThresholdRecord, str | None]:
    """The threshold by the recipe's rule, and a warning where there are too few images for the wished rate."""
    if section.rule == "train_max":
        record = ThresholdRecord(rule="train_max", value=float(in_sample.max()), false_reject_rate=None)
        return record, (
            "the rule train_max takes the training images' own scores, which are far lower than those of unseen good "
            'parts: expect most good parts to be rejected (rule = "conformal" does not have this fault)'
        )
    calibration = Calibration(out_of_sample)
    alpha = section.false_reject_rate
    promised = max(alpha, calibration.attainable_alpha)  # the record says what holds, not what was wished
    record = ThresholdRecord(rule="conformal", value=calibration.threshold(promised), false_reject_rate=promised)
    if promised == alpha:
        return record, None
    return record, (
        f"{len(out_of_sample)} good images cannot vouch for a false-reject rate of {alpha:g}: the largest score is the "
        f"threshold, good for {calibration.attainable_alpha:.3f}. About {round(1 / alpha)} images would do"
    )
