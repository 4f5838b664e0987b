"""A threshold that somebody set by hand, held against the scores that its artifact was calibrated by."""

from models.calibration import Calibration

_FAR = 3  # times the largest good score
_MANY = 0.5  # of the good pictures: the largest rate of false rejects that can be asked for


def doubt(value: float, calibration: Calibration) -> str | None:
    """Why a threshold is hardly what was meant; None if it may be."""
    scores = calibration.scores.double()
    count, largest = len(scores), float(scores.max())
    failing = int((scores > value).sum())
    if failing > _MANY * count:
        share = "all" if failing == count else f"{failing}"
        return f"With {value:g}, {share} of the {count} good pictures that it was calibrated by would fail."
    if 0 < largest * _FAR < value:
        return (
            f"{value:g} is {value / largest:.3g} times the largest score of the {count} good pictures that it was "
            "calibrated by: defects may pass."
        )
    return None
