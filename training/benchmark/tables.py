"""The cells as Markdown and CSV: the source's tables 1 and 2, all columns on average, and what others published."""

import csv
import io
from collections.abc import Sequence

from training.benchmark import reference
from training.benchmark.cells import Cell
from training.benchmark.kinds import MVTEC
from training.benchmark.means import Figure, Mean, by_kind, figure, find, mean
from training.benchmark.method import PEERS, TABLE_1, TABLE_2

_GROUP_NAMES = {"texture": "textures", "object": "objects", "unknown": "others"}
_COLUMNS: tuple[tuple[str, Figure, float, str], ...] = (  # heading, figure, unit, format
    ("image AUROC", "image_auroc", 1, ".4f"),
    ("pixel AUROC", "pixel_auroc", 1, ".4f"),
    ("AUPRO", "aupro", 1, ".4f"),
    ("good rejected", "false_reject_rate", 1, ".1%"),
    ("defects missed", "miss_rate", 1, ".1%"),
    ("training, s", "training_seconds", 1, ".0f"),
    ("ms an image", "milliseconds", 1, ".1f"),
    ("artifact, MB", "artifact_bytes", 1e6, ".1f"),
    ("peak memory, MB", "peak_bytes", 1e6, ".0f"),
    ("peak GPU, MB", "device_bytes", 1e6, ".0f"),
)


def markdown(
    cells: Sequence[Cell], *, categories: Sequence[str], methods: Sequence[str], circumstances: Sequence[str], arch: str
) -> str:
    """The whole document. `circumstances` are lines about what was measured, and how."""
    parts = ["# Benchmark", "\n".join(f"- {line}" for line in circumstances), "![AUROC by method](benchmark.png)"]
    for title, names in (
        ("Table 1: methods", (*TABLE_1, *PEERS)),
        ("Table 2: the stages under other scorers", TABLE_2),
    ):
        if shown := [name for name in names if name in methods]:
            parts += [f"## {title}", "Image AUROC / pixel AUROC.", _by_category(cells, categories, shown)]
    parts += [
        "## All figures, on average over the categories",
        _averages(cells, categories, methods),
        "Shares are of test pictures, at each method's own threshold. `seed` has the source's threshold, the largest "
        "score of the training pictures, whatever rate is wished. (m of n): only m of the n categories have a figure, "
        "so the average is not comparable with the others.",
        *_reference(cells, methods, arch),
        *_failures(cells),
    ]
    return "\n\n".join(parts) + "\n"


def csv_text(cells: Sequence[Cell]) -> str:
    """A row per cell, all its figures."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    figures = ("threshold", "threshold_rule", *(name for _, name, _, _ in _COLUMNS))
    writer.writerow(("category", "kind", "method", "status", "stages", "device", "threads", *figures, "error"))
    for cell in cells:
        about = (cell.category, cell.kind, cell.method, cell.status, " ".join(cell.stages), cell.device, cell.threads)
        values = [None if cell.figures is None else getattr(cell.figures, name) for name in figures]
        writer.writerow((*about, *values, cell.error))
    return file.getvalue()


def _by_category(cells: Sequence[Cell], categories: Sequence[str], methods: Sequence[str]) -> str:
    rows = []
    groups = by_kind(categories, cells)
    for kind, names in groups.items():
        rows += [[name, *(_pair(find(cells, name, method)) for method in methods)] for name in names]
        rows.append(_mean_row(f"**mean of {_GROUP_NAMES[kind]}**", cells, names, methods))
    if len(groups) > 1:
        rows.append(_mean_row("**mean of all**", cells, categories, methods))
    return _table(("category", *methods), rows)


def _mean_row(title: str, cells: Sequence[Cell], names: Sequence[str], methods: Sequence[str]) -> list[str]:
    row = [title]
    for method in methods:
        image, pixel = (mean(cells, names, method, name) for name in ("image_auroc", "pixel_auroc"))
        row.append(f"{_mean(image, '.4f')} / {_mean(pixel, '.4f')}" if image or pixel else "")
    return row


def _pair(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.figures is None:
        return "failed"
    return " / ".join(
        "-" if each is None else f"{each:.4f}" for each in (cell.figures.image_auroc, cell.figures.pixel_auroc)
    )


def _averages(cells: Sequence[Cell], categories: Sequence[str], methods: Sequence[str]) -> str:
    columns = [column for column in _COLUMNS if column[1] != "device_bytes" or _on_gpu(cells)]
    rows = []
    for method in methods:
        found = [mean(cells, categories, method, name) for _, name, _, _ in columns]
        rows.append(
            [method, *(_mean(each, form, unit) for each, (_, _, unit, form) in zip(found, columns, strict=True))]
        )
    return _table(("method", *(heading for heading, _, _, _ in columns)), rows)


def _on_gpu(cells: Sequence[Cell]) -> bool:
    return any(figure(cell, "device_bytes") for cell in cells)


def _reference(cells: Sequence[Cell], methods: Sequence[str], arch: str) -> list[str]:
    title = "## Published elsewhere"
    if arch != reference.ARCHITECTURE:
        return [title, f"The published figures are of {reference.ARCHITECTURE}; this is {arch}, so none stand here."]
    rows = []
    for published in reference.PUBLISHED:
        for method in published.methods:
            if method not in methods:
                continue
            image, pixel = (mean(cells, MVTEC, method, name) for name in ("image_auroc", "pixel_auroc"))
            here = f"{_mean(image, '.4f')} / {_mean(pixel, '.4f')}"
            there = " / ".join(f"{value:.3f}" for value in published.mean)
            screw = " / ".join(f"{value:.3f}" for value in published.screw)
            rows.append([method, here, published.name, there, _pair(find(cells, "screw", method)), screw])
    heading = ("method", "mean here", "published as", "mean published", "screw here", "screw published")
    said = (
        f"Not measured here; from {reference.SOURCE}. Image AUROC / pixel AUROC; means over MVTec AD's 15 categories."
    )
    return [title, *([said, _table(heading, rows)] if rows else []), reference.CLAIMS]


def _failures(cells: Sequence[Cell]) -> list[str]:
    failed = [f"- {cell.category}, {cell.method}: {cell.error}" for cell in cells if cell.status == "failed"]
    return ["## Failed", "The same command tries these again.", "\n".join(failed)] if failed else []


def _mean(found: Mean | None, form: str, unit: float = 1) -> str:
    if found is None:
        return "-"
    partial = "" if found.categories == found.wanted else f" ({found.categories} of {found.wanted})"
    return f"{found.value / unit:{form}}{partial}"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---", *("---:" for _ in heading[1:])], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
