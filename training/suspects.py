"""Good pictures that look as if one were not good: a defect among them, learnt as good, lets defects pass."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from models.manifest import ThresholdRecord

_BULK = 0.9  # of the pictures, which may be trusted to be good
_FAR = 5.0  # times as far beyond the median as the bulk reaches: good parts alone stay below 4 (docs/log.md)
_LEAST, _MOST = 1.5, 2.0  # times the median: what is nearer is not far, and what is farther is, whatever the bulk does
_NAMED = 3


def suspects(scores: Tensor, paths: Sequence[Path], threshold: ThresholdRecord) -> str | None:
    """A warning that names those of n good pictures whose out-of-sample scores (n,) lie far beyond the others'.

    And whether the threshold is so high for their sake alone.
    """
    ascending = scores.sort().values
    median, bulk = (float(ascending[int(share * (len(scores) - 1))]) for share in (0.5, _BULK))
    limit = min(max(median + _FAR * (bulk - median), _LEAST * median), _MOST * median)
    far = [int(index) for index in scores.argsort(descending=True, stable=True) if scores[index] > limit]
    if not far:
        return None
    named = ", ".join(f"{paths[index].name} {scores[index]:.4g}" for index in far[:_NAMED])
    more = ", ..." if len(far) > _NAMED else ""
    consequence = "defects like theirs are learnt as good"
    if threshold.value > limit:
        consequence = f"the threshold is {threshold.value:.4g} for their sake alone, and defects below it pass"
    return (
        f"pictures that score far beyond the others, {len(far)} of {len(scores)} ({named}{more}; half score below "
        f"{median:.4g}, nine of ten below {bulk:.4g}): {consequence}. Look at them: if a part is not good, remove its "
        "picture and train again"
    )
