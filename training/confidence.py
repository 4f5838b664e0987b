"""How far a counted share can be trusted: the exact interval of Clopper and Pearson for a binomial proportion.

Of twenty good parts none rejected does not mean that none ever will be: up to 17 % could be, by
`share_interval(0, 20)`. Exact means that at
least the wished share of such intervals holds the truth, however few were counted; it errs on the wide side.
"""

import math

import numpy as np
from numpy.typing import NDArray

_HALVINGS = 60  # of the interval from 0 to 1: more than a float can tell apart


def share_interval(count: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The shares between which `count` of `total` leaves the truth, with this confidence.

    The lower end is the share at which `count` or more have a chance of (1 - confidence) / 2, the upper one that at
    which `count` or fewer have (Clopper & Pearson, Biometrika 1934). Raises ValueError unless 0 <= count <= total > 0.
    """
    if not 0 <= count <= total or total == 0:
        raise ValueError(f"there is no interval for {count} of {total}")
    tail = (1 - confidence) / 2
    # Counting those that are not among them turns one end into the other.
    return 1 - _upper_end(total - count, total, tail), _upper_end(count, total, tail)


def _upper_end(count: int, total: int, tail: float) -> float:
    """The share at which `count` or fewer of `total` have a chance of `tail`."""
    if count == total:
        return 1.0
    ways = _log_ways(count, total)
    low, high = count / total, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _chance_of_at_most(count, total, middle, ways) > tail:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _log_ways(count: int, total: int) -> NDArray[np.float64]:
    """(count + 1,): logarithms of the binomial coefficients of `total` over 0 ... count."""
    chosen = np.arange(1, count + 1)
    return np.concatenate([[0.0], np.cumsum(np.log((total - chosen + 1) / chosen))])


def _chance_of_at_most(count: int, total: int, share: float, ways: NDArray[np.float64]) -> float:
    chosen = np.arange(count + 1)
    logarithms = ways + chosen * math.log(share) + (total - chosen) * math.log1p(-share)
    return float(np.exp(logarithms).sum())
