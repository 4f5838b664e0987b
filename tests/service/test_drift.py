"""Drift: the distribution against SciPy's, and chances that mean what they say."""

import numpy as np
import pytest
from scipy.special import kolmogorov

from service.drift import drift, kolmogorov_tail


def p_values(calibration: np.ndarray, scores: np.ndarray) -> dict[float, int]:
    as_high = len(calibration) - np.searchsorted(np.sort(calibration), scores)
    values, counts = np.unique((1 + as_high) / (len(calibration) + 1), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_the_tail_is_kolmogorov_s() -> None:
    for x in np.concatenate([np.linspace(0.02, 4, 400), [0.999999, 1.0, 1.000001]]):
        assert kolmogorov_tail(float(x)) == pytest.approx(kolmogorov(x), rel=1e-10, abs=1e-15)
    assert kolmogorov_tail(0.0) == 1.0
    assert kolmogorov_tail(1e-9) == 1.0


def test_what_was_promised_is_no_drift() -> None:
    found = drift({k / 25: 10 for k in range(1, 26)}, calibrated=24)
    assert found.distance == pytest.approx(0, abs=1e-12)
    assert (found.p_value, found.inspected) == (1.0, 250)


def test_all_in_one_place() -> None:
    high = drift({1 / 25: 8}, calibrated=24)
    assert (high.distance, high.scores, high.inspected) == (pytest.approx(24 / 25), "higher", 8)
    low = drift({1.0: 8}, calibrated=24)
    assert (low.distance, low.scores) == (pytest.approx(24 / 25), "lower")
    assert max(high.p_value, low.p_value) < 1e-4


@pytest.mark.parametrize(("calibrated", "inspected"), [(24, 30), (100, 5000), (320, 200)])
def test_without_drift_alarms_are_as_rare_as_their_chance(calibrated: int, inspected: int) -> None:
    rng = np.random.default_rng(0)
    chances = []
    for _ in range(2000):
        counts = p_values(rng.normal(size=calibrated), rng.normal(size=inspected))
        chances.append(drift(counts, calibrated=calibrated).p_value)
    for level in (0.05, 0.2):
        # Rarer for few calibration scores, whose steps are coarse; never more often, by three standard errors. That
        # the calibration is a sample too is what this is about.
        share = np.mean(np.array(chances) <= level)
        assert 0.4 * level < share < level + 3 * np.sqrt(level * (1 - level) / 2000)


def test_a_shift_is_found_and_named() -> None:
    rng = np.random.default_rng(1)
    for shift, name in ((0.7, "higher"), (-0.7, "lower")):
        found = drift(p_values(rng.normal(size=200), rng.normal(shift, size=500)), calibrated=200)
        assert (found.p_value < 1e-6, found.scores) == (True, name)


@pytest.mark.parametrize("counts", [{}, {0.0: 1}, {0.5: 1}, {26 / 25: 1}])
def test_what_no_calibration_gives_is_refused(counts: dict[float, int]) -> None:
    with pytest.raises(ValueError, match="p-value"):
        drift(counts, calibrated=24)
