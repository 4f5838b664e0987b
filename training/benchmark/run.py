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
    """Measure every cell that is not there yet; `after_each` gets all that there are, after each and at the end."""
    keys = CellKeys(request)
    wanted = {(category, method): key for category in request.categories for method, key in keys.of(category).items()}
    cells = {place: cell for place, key in wanted.items() if (cell := _measured_before(request, place, key))}
    todo = [(c, method) for c in request.categories for method in request.methods if (c, method.name) not in cells]
    console.print(f"{len(cells)} cells were measured before, {len(todo)} are left", highlight=False)
    started = time.perf_counter()
    for number, (category, method) in enumerate(todo, start=1):
        console.print(f"[{number}/{len(todo)}] {category}, {method.name}", markup=False, highlight=False)
        place = (category, method.name)
        cells[place] = _measure(request, category, method, wanted[place])
        _say(cells[place], console, left=len(todo) - number, spent=time.perf_counter() - started, measured=number)
        after_each([cells[each] for each in wanted if each in cells])
    after_each(list(cells.values()))
    return [cells[each] for each in wanted]


def _measured_before(request: BenchmarkRequest, place: tuple[str, str], key: str) -> Cell | None:
    """The cell of a category and a method, if it is there, did not fail, and nothing that it depends on has changed."""
    cell = read_cell(cell_path(request.output, *place))
    return cell if cell is not None and cell.key == key and cell.status != "failed" else None


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
