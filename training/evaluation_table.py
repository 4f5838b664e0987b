"""An evaluation for a terminal, and its figures as text, there and in the report."""

from rich.markup import escape
from rich.table import Table

from training.datasets import GOOD
from training.evaluate import Evaluation


def table(evaluation: Evaluation) -> Table:
    """The figures for a terminal: a row per defect type, the whole below."""
    rejected = rate_text(evaluation.false_reject_rate, evaluation.false_reject_interval)
    result = Table(
        title=f"{evaluation.category} {evaluation.version}",
        caption=f"image AUROC {figure_text(evaluation.image_auroc)}   pixel AUROC "
        f"{figure_text(evaluation.pixel_auroc)}   AUPRO {figure_text(evaluation.aupro)}\n"
        f"good parts rejected {rejected}\n"
        f"defects missed {rate_text(evaluation.miss_rate)}   threshold {evaluation.threshold:.4f} "
        f"({evaluation.threshold_rule}{'' if evaluation.alpha is None else f', {evaluation.alpha:g}'})",
    )
    result.add_column("defect")
    for name in ("images", "rejected", "missed", "AUROC", "mean score"):
        result.add_column(name, justify="right")
    for name, figures in evaluation.by_defect.items():
        missed = "" if name == GOOD else str(figures.missed)
        counts = (str(figures.images), str(figures.rejected), missed)
        result.add_row(escape(name), *counts, figure_text(figures.auroc), f"{figures.mean_score:.3f}")
    return result


def figure_text(figure: float | None) -> str:
    """An AUROC or AUPRO, "-" where there is none."""
    return "-" if figure is None else f"{figure:.4f}"


def rate_text(rate: float | None, interval: tuple[float, float] | None = None) -> str:
    """A share in per cent, with its 95 % interval if there is one; "-" where there is none."""
    if rate is None:
        return "-"
    known_to = "" if interval is None else f" (95 % interval {interval[0]:.1%} to {interval[1]:.1%})"
    return f"{rate:.1%}{known_to}"
