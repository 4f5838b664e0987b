"""Good pictures that look as if one were not good: a defect among them, learnt as good, lets defects pass."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from models.manifest import ThresholdRecord

_FEWEST = 20  # pictures: of fewer one cannot tell what is far
_FAR = ((0.9, 5.0), (0.75, 10.0))  # so many times as far beyond the median as these shares of the pictures reach
_LEAST = 1.5  # times the median, where the others are much alike
_NAMED = 3


def suspects(scores: Tensor, paths: Sequence[Path], threshold: ThresholdRecord) -> str | None:
    """A warning that names those of n good pictures whose out-of-sample scores (n,) lie far beyond the others'.

    And whether the threshold lies beyond the others too. A defect need not stand out so: nothing said is no proof. How
    far good parts come, and defective ones among them, is in docs/log.md.
    """
    if len(scores) < _FEWEST:
        return None
    ascending = scores.sort().values

    def up_to(share: float) -> float:
        return float(ascending[math.ceil(share * len(scores)) - 1])

    median = up_to(0.5)
    limit = max(min(median + far * (up_to(share) - median) for share, far in _FAR), _LEAST * median)
    found = [int(index) for index in scores.argsort(descending=True, stable=True) if scores[index] > limit]
    if not found:
        return None
    often = Counter(path.name for path in paths)
    some = [(paths[index], scores[index]) for index in found[:_NAMED]]
    named = ", ".join(f"{path.name if often[path.name] == 1 else path} {score:.4g}" for path, score in some)
    more = ", ..." if len(found) > _NAMED else ""
    consequence = "defects like theirs may be learnt as good"
    if threshold.value > limit:
        consequence = f"the threshold is {threshold.value:.4g} for their sake, and defects below it pass"
    return (
        f"pictures that score far beyond the others, {len(found)} of {len(scores)} ({named}{more}; half score up to "
        f"{median:.4g}, three of four up to {up_to(0.75):.4g}): {consequence}. Look at them: if a part is not good, "
        "train again with the picture of a good one instead"
    )
