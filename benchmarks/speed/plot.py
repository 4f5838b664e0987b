"""Milliseconds an image as a picture: a panel a network and source, a row a contestant, a mark a batch."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from speed.contestants import OURS
from speed.results import Results
from speed.spread import spread

_COLOURS = ("#2f6fab", "#c8452e", "#4a8f3c", "#8a5fb0", "#b08a2f")
_MARKS = ("o", "s", "D", "^", "v")


def draw(results: Results, path: Path) -> bool:
    """Write the picture; nothing is written, and False returned, where nothing was timed."""
    timed = [each for each in results.timings if each.milliseconds]
    if not timed:
        return False
    archs = list(dict.fromkeys(each.arch for each in timed))
    sources = list(dict.fromkeys(each.source for each in timed))
    names = list(dict.fromkeys(each.contestant for each in timed))
    # Without pyplot, which would keep global state and look for a display.
    drawing = Figure(
        figsize=(1.8 + 3.4 * len(sources), 1.4 + len(archs) * (0.7 + 0.36 * len(names))), layout="constrained"
    )
    grid = drawing.subplots(len(archs), len(sources), sharex="row", sharey=True, squeeze=False)
    for row, arch in zip(grid, archs, strict=True):
        for axes, source in zip(row, sources, strict=True):
            _panel(axes, results, arch, source, names)
    handles, labels = grid[0][0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize="small")
    drawing.supxlabel("milliseconds an image, logarithmic: median, and the quartiles or extremes", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".incoming-{path.name}")
    drawing.savefig(incoming, dpi=150, format="png")
    incoming.replace(path)
    return True


def _panel(axes: Axes, results: Results, arch: str, source: str, names: list[str]) -> None:
    batches = sorted({batch for *_, batch in results.cases()})
    for index, batch in enumerate(batches):
        for row, name in enumerate(names):
            timing = results.timing(arch, source, batch, name)
            if timing is None or not timing.milliseconds:
                continue
            found = spread(timing.milliseconds).times(1 / batch)
            height = row + 0.16 * (index - (len(batches) - 1) / 2)
            colour, mark = _COLOURS[index % len(_COLOURS)], _MARKS[index % len(_MARKS)]
            label = f"batch {batch}" if name == OURS else None
            axes.plot([found.low, found.high], [height, height], linewidth=1.5, color=colour)
            axes.plot(found.median, height, mark, markersize=5, color=colour, label=label)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_title(f"{arch}, {source}", fontsize="medium")
    axes.grid(axis="x", which="both", color="#0002")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
