"""What the scores of unseen good images say about a new score: thresholds and p-values.

Owns the conformal quantile and the p-value; refuses score sets that are empty or not finite. The scores must
be out of sample (`training.calibrate`): those of the images that a Gaussian was fitted on are far too low.
Where each was scored by a detector made without that image, rates are approximate: see `Calibration`.
A part fails when its score is greater than the threshold.
"""

import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from models.errors import ScoreError


def attainable_alpha(images: int) -> float:
    """The smallest false-reject rate that scores of so many images can speak of."""
    return 1 / (images + 1)


class Calibration:
    """The n out-of-sample scores of good images, sorted; immutable.

    For any alpha >= `attainable_alpha`, `score > threshold(alpha)` and `p_value(score) <= alpha` are one
    statement, and a good part satisfies it with a probability of about alpha. "At most alpha" would take scores
    of a detector that none of the n images shaped. Leave-one-out scores come from n detectors of n-1 images each,
    a new part's from one of all n, so the new score is not exchangeable with them (the jackknife's gap).
    """

    __slots__ = ("_scores",)

    def __init__(self, scores: np.ndarray | Tensor) -> None:
        """Take scores (n,), n >= 1, of any order; ValueError if they are not finite as float32."""
        values = scores if isinstance(scores, Tensor) else torch.tensor(np.ascontiguousarray(scores))
        values = values.detach().to(device="cpu", dtype=torch.float32)
        if values.ndim != 1 or len(values) == 0:
            raise ValueError(f"calibration needs a row of one score or more, got shape {tuple(values.shape)}")
        bad = int((~values.isfinite()).sum())
        if bad:
            raise ValueError(f"calibration: {bad} of {len(values)} scores are not finite numbers")
        self._scores = values.sort().values

    @property
    def scores(self) -> Tensor:
        """A copy of the scores, (n,) float32, ascending."""
        return self._scores.clone()

    @property
    def attainable_alpha(self) -> float:
        """The smallest false-reject rate that n scores can speak of: 1/(n+1)."""
        return attainable_alpha(len(self._scores))

    def threshold(self, alpha: float) -> float:
        """The conformal threshold for a false-reject rate `alpha` in (0, 1): always one of the scores.

        It is the ceil((1-alpha)(n+1))-th smallest score. Where that exceeds n, alpha is below
        `attainable_alpha`: the largest score is used, and the rate is about `attainable_alpha`.
        """
        if not 0 < alpha < 1:
            raise ValueError(f"the false-reject rate must lie between 0 and 1, got {alpha}")
        n = len(self._scores)
        # As the decimal number that was written: in floats 0.29 * 100 is less than 29. Twelve digits,
        # so that 1 - 0.93 is 0.07.
        exact = Fraction(str(round(float(alpha), 12)))
        rank = n + 1 - math.floor(exact * (n + 1))
        return float(self._scores[min(max(rank, 1), n) - 1])

    def p_value(self, score: float) -> float:
        """About the chance that a good part scores at least this high: (1 + #{scores >= score}) / (n + 1).

        Raises ScoreError for a score that is not a finite number: of that nothing can be said.
        """
        if not math.isfinite(score):
            raise ScoreError(f"the score is {score}, so there is no verdict: check detector and input")
        # In float64, so that the comparison is the verdict's: a float32 one would round the score first.
        as_high = int((self._scores.double() >= float(score)).sum())
        return (1 + as_high) / (len(self._scores) + 1)
