"""An evaluation for a terminal, and its figures as text, there and in the report."""

from rich.markup import escape
from rich.table import Table

from training.datasets import GOOD
from training.evaluate import Evaluation

_WIDEST = 78  # characters
_FEW = 10  # good parts: of so few, none rejected still leaves a third of all open


def table(evaluation: Evaluation) -> Table:
    """The figures for a terminal: a row per defect type, the whole below."""
    caption = _caption(evaluation)
    # A caption is only as wide as the table, which may have few columns.
    width = min(max(map(len, caption)), _WIDEST)
    result = Table(title=f"{evaluation.category} {evaluation.version}", caption="\n".join(caption), min_width=width)
    result.add_column("defect")
    defective = _any_defects(evaluation)
    for heading in ("images", "rejected", *(("missed", "AUROC") if defective else ()), "mean score"):
        result.add_column(heading, justify="right")
    for name, figures in evaluation.by_defect.items():
        missed = "" if name == GOOD else str(figures.missed)
        against = (missed, figure_text(figures.auroc)) if defective else ()
        counts = (str(figures.images), str(figures.rejected))
        result.add_row(escape(name), *counts, *against, f"{figures.mean_score:.3f}")
    return result


def _caption(evaluation: Evaluation) -> list[str]:
    rejected = rate_text(evaluation.false_reject_rate, evaluation.false_reject_interval)
    rule = f"{evaluation.threshold_rule}{'' if evaluation.alpha is None else f', {evaluation.alpha:g}'}"
    threshold = f"threshold {evaluation.threshold:.4f} ({rule})"
    if _any_defects(evaluation):
        return [
            f"image AUROC {figure_text(evaluation.image_auroc)}   pixel AUROC {figure_text(evaluation.pixel_auroc)}   "
            f"AUPRO {figure_text(evaluation.aupro)}",
            f"good parts rejected {rejected}",
            f"defects missed {rate_text(evaluation.miss_rate)}   {threshold}",
        ]
    count = len(evaluation.images)
    few = f"{count} good part{'' if count == 1 else 's'} say little: the interval is wide"
    return [f"good parts rejected {rejected}", threshold, *([few] if count < _FEW else [])]


def _any_defects(evaluation: Evaluation) -> bool:
    """Whether there is anything to tell good parts from; without, AUROC, AUPRO and misses have nothing to say."""
    return any(name != GOOD for name in evaluation.by_defect)


def figure_text(figure: float | None) -> str:
    """An AUROC or AUPRO, "-" where there is none."""
    return "-" if figure is None else f"{figure:.4f}"


def rate_text(rate: float | None, interval: tuple[float, float] | None = None) -> str:
    """A share in per cent, with its 95 % interval if there is one; "-" where there is none."""
    if rate is None:
        return "-"
    known_to = "" if interval is None else f" (95 % interval {interval[0]:.1%} to {interval[1]:.1%})"
    return f"{rate:.1%}{known_to}"
