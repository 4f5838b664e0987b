"""How far the p-values of a window are from what calibration promises for good parts.

A good part's p-value is one of k/(n+1), k = 1 ... n+1, each as likely, where n is the number of calibration scores.
The distance is Kolmogorov's and Smirnov's: the greatest difference between the two distribution functions, both of
which step at k/(n+1) only. How likely a distance at least that large is by chance alone follows from n and the number
m of parts both, because the calibration is a sample too: the limiting distribution of the two-sample test (Smirnov,
Annals of Mathematical Statistics 19, 1948) at the effective size nm/(n+m), with the correction for small samples of
Stephens (Journal of the Royal Statistical Society B 32, 1970).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

# Below it the complement converges at once, above it the series itself (to double precision in a few terms).
_SWITCH = 1.0
_TERMS = 10


@dataclass(frozen=True)
class Drift:
    """A distance in [0, 1], the chance of one as large without any drift, and where the scores have gone."""

    distance: float
    p_value: float
    inspected: int
    scores: Literal["higher", "lower"]


def drift(counts: Mapping[float, int], *, calibrated: int) -> Drift:
    """The drift of p-values, given as value -> how often, against `calibrated` scores.

    Raises ValueError if there are none, or if one of them cannot come from that many calibration scores.
    """
    steps = calibrated + 1
    observed = np.zeros(steps)
    for p_value, count in counts.items():
        k = round(p_value * steps)
        if not (1 <= k <= steps and math.isclose(p_value * steps, k, rel_tol=0, abs_tol=1e-6)):
            raise ValueError(f"a p-value of {p_value} does not come from {calibrated} calibration scores")
        observed[k - 1] += count
    inspected = int(observed.sum())
    if inspected == 0:
        raise ValueError("there are no p-values")
    difference = np.cumsum(observed) / inspected - np.arange(1, steps + 1) / steps
    worst = int(np.abs(difference).argmax())
    distance = float(abs(difference[worst]))
    root = math.sqrt(calibrated * inspected / (calibrated + inspected))
    return Drift(
        distance=distance,
        p_value=kolmogorov_tail((root + 0.12 + 0.11 / root) * distance),
        inspected=inspected,
        scores="higher" if difference[worst] > 0 else "lower",
    )


def kolmogorov_tail(x: float) -> float:
    """The chance that a variable of Kolmogorov's distribution exceeds x >= 0.

    2 sum (-1)^(j-1) exp(-2 j² x²), or, where that converges slowly, its image under Jacobi's theta identity,
    1 - sqrt(2 pi)/x sum exp(-(2j-1)² pi² / (8 x²)).
    """
    if x <= 0:
        return 1.0
    if x < _SWITCH:
        odd = 2 * np.arange(1, _TERMS + 1) - 1
        return 1 - math.sqrt(2 * math.pi) / x * float(np.exp(-((odd * math.pi / x) ** 2) / 8).sum())
    j = np.arange(1, _TERMS + 1)
    return float(2 * (np.where(j % 2 == 1, 1, -1) * np.exp(-2 * (j * x) ** 2)).sum())
