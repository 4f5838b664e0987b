"""Image and pixel AUROC by method, as a picture: the average as a diamond, each category as a dot.

No bars: the axes do not start at zero, where all methods would look alike.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from training.benchmark.cells import Cell
from training.benchmark.means import Figure, figure, find, mean
from training.benchmark.method import PEERS

_OURS, _PEER = "#2f6fab", "#c8452e"
_PANELS: tuple[tuple[Figure, str], ...] = (("image_auroc", "image AUROC"), ("pixel_auroc", "pixel AUROC"))


def draw(cells: Sequence[Cell], path: Path, *, categories: Sequence[str], methods: Sequence[str]) -> None:
    """Write the picture; a method without figures has an empty row."""
    # Without pyplot, which would keep global state and look for a display.
    drawing = Drawing(figsize=(11, 1.6 + 0.38 * len(methods)), layout="constrained")
    left, right = drawing.subplots(1, 2, sharey=True)
    for axes, (name, title) in zip((left, right), _PANELS, strict=True):
        _panel(axes, cells, name, title, categories=categories, methods=methods)
    left.set_yticks(range(len(methods)), methods)
    left.set_ylim(len(methods) - 0.5, -0.5)
    drawing.supxlabel("diamond: average over the categories; red: anomalib", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".incoming-{path.name}")
    drawing.savefig(incoming, dpi=150, format="png")
    incoming.replace(path)


def _panel(
    axes: Axes, cells: Sequence[Cell], name: Figure, title: str, *, categories: Sequence[str], methods: Sequence[str]
) -> None:
    for row, method in enumerate(methods):
        found = mean(cells, categories, method, name)
        if found is None:
            continue
        colour = _PEER if method in PEERS else _OURS
        dots = [value for each in categories if (value := figure(find(cells, each, method), name)) is not None]
        if len(dots) > 1:
            axes.plot([min(dots), max(dots)], [row, row], color=colour, linewidth=1, zorder=1)
            axes.plot(dots, [row] * len(dots), "o", color=colour, markersize=4, alpha=0.45, clip_on=False)
        axes.plot(found.value, row, "D", color=colour, markersize=8, clip_on=False)
        axes.text(1.02, row, f"{found.value:.3f}", transform=axes.get_yaxis_transform(), va="center", fontsize="small")
    axes.set_xmargin(0.08)
    axes.autoscale_view()
    axes.set_xlim(right=1.0)
    axes.set_xlabel(title)
    axes.grid(axis="x", color="#0002")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
