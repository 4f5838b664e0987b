"""Good pictures that look as if one were not good: a defect among them, learnt as good, lets defects pass."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from models.manifest import ThresholdRecord

_FEWEST = 20  # pictures: of fewer one cannot tell what is far
_BULK = 0.9  # of the pictures, which may be trusted to be good
_FAR = 5.0  # times as far beyond the median as the bulk reaches: nearly all good parts are nearer (docs/log.md)
_LEAST = 1.5  # times the median, where the bulk is narrow
_NAMED = 3


def suspects(scores: Tensor, paths: Sequence[Path], threshold: ThresholdRecord) -> str | None:
    """A warning that names those of n good pictures whose out-of-sample scores (n,) lie far beyond the others'.

    And whether the threshold lies beyond the others too. A defect need not stand out so: nothing said is no proof.
    """
    if len(scores) < _FEWEST:
        return None
    ascending = scores.sort().values
    median, bulk = (float(ascending[math.ceil(share * len(scores)) - 1]) for share in (0.5, _BULK))
    limit = max(median + _FAR * (bulk - median), _LEAST * median)
    far = [int(index) for index in scores.argsort(descending=True, stable=True) if scores[index] > limit]
    if not far:
        return None
    often = Counter(path.name for path in paths)
    some = [(paths[index], scores[index]) for index in far[:_NAMED]]
    named = ", ".join(f"{path.name if often[path.name] == 1 else path} {score:.4g}" for path, score in some)
    more = ", ..." if len(far) > _NAMED else ""
    consequence = "defects like theirs may be learnt as good"
    if threshold.value > limit:
        consequence = f"the threshold is {threshold.value:.4g} for their sake, and defects below it pass"
    return (
        f"pictures that score far beyond the others, {len(far)} of {len(scores)} ({named}{more}; half score up to "
        f"{median:.4g}, nine of ten up to {bulk:.4g}): {consequence}. Look at them: if a part is not good, train again "
        "with the picture of a good one instead"
    )
