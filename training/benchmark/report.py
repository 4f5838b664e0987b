"""What a benchmark leaves behind: benchmark.md, benchmark.csv and benchmark.png, each whole or not at all."""

from collections.abc import Sequence
from pathlib import Path

import torch

from models.device import pick_device
from training.benchmark.cells import Cell
from training.benchmark.plot import draw
from training.benchmark.request import BenchmarkRequest
from training.benchmark.tables import csv_text, markdown


def write_report(request: BenchmarkRequest, cells: Sequence[Cell]) -> Path:
    """Write the three files for the cells so far, and return the path of the Markdown."""
    names = [method.name for method in request.methods]
    request.output.mkdir(parents=True, exist_ok=True)
    _replace(request.output / "benchmark.csv", csv_text(cells))
    draw(cells, request.output / "benchmark.png", categories=request.categories, methods=names)
    page = request.output / "benchmark.md"
    document = markdown(
        cells,
        categories=request.categories,
        methods=names,
        circumstances=_circumstances(request, cells),
        arch=request.arch,
    )
    _replace(page, document)
    return page


def _circumstances(request: BenchmarkRequest, cells: Sequence[Cell]) -> list[str]:
    device = pick_device(request.device).type
    place = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    threads = sorted({cell.threads for cell in cells if cell.figures is not None})
    done = sum(cell.figures is not None for cell in cells)
    return [
        f"{request.arch}, weights `{Path(request.weights).name}`, the same for every method",
        f"{done} of {len(request.categories) * len(request.methods)} cells measured, "
        f"{sum(cell.error is not None for cell in cells)} failed",
        f"threshold for a false-reject rate of {request.false_reject_rate:g}, where a method's rule has one",
        f"{place}, {', '.join(map(str, threads)) or 'no'} threads",
        "milliseconds: median over single pictures, resizing included, decoding not; sizes in units of 10^6 bytes",
        "anomalib's threshold: the conformal rule on a fifth of the good pictures, held out of a training of its own",
    ]


def _replace(path: Path, text: str) -> None:
    incoming = path.with_name(f".incoming-{path.name}")
    incoming.write_text(text, encoding="utf-8")
    incoming.replace(path)
