"""All cells, one after the other, each in its own process; the tables are written anew after each.

A cell that is there already, with the same key, is taken as it is; one that failed is tried again.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from training.benchmark.cells import Cell, CellRequest, cell_path, read_cell, write_cell
from training.benchmark.keys import CellKeys
from training.benchmark.method import Method
from training.benchmark.request import BenchmarkRequest


def run_benchmark(
    request: BenchmarkRequest, console: Console, *, after_each: Callable[[Sequence[Cell]], object]
) -> list[Cell]:
    """Measure every cell that is not there yet; `after_each` gets all cells so far, whenever one is added."""
    keys = CellKeys(request)
    cells: list[Cell] = []
    count, started, measured = len(request.categories) * len(request.methods), time.perf_counter(), 0
    for category in request.categories:
        mine = keys.of(category)
        for method in request.methods:
            console.print(f"[{len(cells) + 1}/{count}] {category}, {method.name}", markup=False, highlight=False)
            cell = read_cell(cell_path(request.output, category, method.name))
            if cell is None or cell.key != mine[method.name] or cell.status == "failed":
                cell = _measure(request, category, method, mine[method.name])
                measured += 1
                _say(cell, console, left=count - len(cells) - 1, spent=time.perf_counter() - started, measured=measured)
            else:
                console.print("    measured before", highlight=False)
            cells.append(cell)
            after_each(cells)
    return cells


def _measure(request: BenchmarkRequest, category: str, method: Method, key: str) -> Cell:
    """The cell, measured by another process, which writes it; or what became of that process."""
    path = cell_path(request.output, category, method.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    asked = path.with_suffix(".request")
    document = CellRequest(
        data=request.data.absolute(),
        category=category,
        method=method.name,
        key=key,
        arch=request.arch,
        weights=_absolute(request.weights),
        textures=None if request.textures is None else request.textures.absolute(),
        false_reject_rate=request.false_reject_rate,
        device=request.device,
        output=request.output.absolute(),
        peer_python=request.peer_python,
    )
    path.unlink(missing_ok=True)
    asked.write_text(document.model_dump_json(), encoding="utf-8")
    try:
        status = subprocess.run(
            [sys.executable, "-m", "training.benchmark.measure", str(asked)], check=False
        ).returncode
    finally:
        asked.unlink(missing_ok=True)
    if status == 130:
        raise KeyboardInterrupt
    cell = read_cell(path)
    if cell is None:
        error = f"its process ended with status {status} and no result"
        error += "; it was killed, perhaps for want of memory" if status in (-9, 137) else ""
        cell = Cell(category=category, method=method.name, key=key, error=error)
        write_cell(path, cell)
    return cell


def _say(cell: Cell, console: Console, *, left: int, spent: float, measured: int) -> None:
    if cell.figures is None:
        said = f"failed: {cell.error}"
    else:
        image, pixel = (
            "-" if each is None else f"{each:.4f}" for each in (cell.figures.image_auroc, cell.figures.pixel_auroc)
        )
        said = f"image AUROC {image}, pixel AUROC {pixel}"
    rest = timedelta(seconds=round(left * spent / measured))
    console.print(f"    {said}; {left} cells left, about {rest}", markup=False, highlight=False)


def _absolute(weights: str) -> str:
    """A file's whole path, since the process that reads it might start elsewhere; other words as they are."""
    return str(Path(weights).absolute()) if Path(weights).is_file() else weights
