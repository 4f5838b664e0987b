"""Medians, how far the repetitions lie apart, and ratios of repetitions that were taken in turns."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_ENOUGH_FOR_QUARTILES: Final = 5


@dataclass(frozen=True)
class Spread:
    """A median, and what half of the repetitions lie between; of fewer than five, all of them."""

    median: float
    low: float
    high: float
    count: int

    def times(self, factor: float) -> "Spread":
        """The same in another unit; `factor` is positive."""
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.count)


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    if len(values) < _ENOUGH_FOR_QUARTILES:
        return Spread(statistics.median(values), min(values), max(values), len(values))
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high, len(values))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Of the n-th to the n-th: what slows the machine for a while slows both. The longer one's rest is left out."""
    pairs = zip(numerators, denominators, strict=False)
    return spread([above / below for above, below in pairs])
