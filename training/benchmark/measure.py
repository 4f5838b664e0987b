"""One cell, measured in a process of its own: `python -m training.benchmark.measure REQUEST.json`.

So memory and time are the cell's alone, and whatever kills it loses one cell. The artifact is deleted once it is
measured: fifteen categories of a dense Gaussian would fill a disk.
"""

import sys
import time
import traceback
from pathlib import Path

import torch
from rich.console import Console

from models.artifact import load
from models.device import pick_device
from models.errors import JigSightError
from training.benchmark import speed
from training.benchmark.cells import Cell, CellRequest, Figures, cell_path, write_cell
from training.benchmark.kinds import known_kind
from training.benchmark.method import METHODS, method_recipe
from training.benchmark.peers import measure_peer
from training.datasets import test_samples
from training.evaluate import evaluate
from training.loop import Devices
from training.picture_files import read_image
from training.pipeline import train_category
from training.progress import Progress
from training.request import TrainingRequest


def measure(request: CellRequest, progress: Progress) -> Cell:
    """Train and measure one method on one category. Raises what goes wrong."""
    method = METHODS[request.method]
    if method.peer is not None:
        return measure_peer(request, method.peer, progress)
    return _measure_ours(request, progress)


def _measure_ours(request: CellRequest, progress: Progress) -> Cell:
    device = pick_device(request.device)
    artifacts = request.output / "artifacts" / request.method
    training = TrainingRequest(
        data=request.data,
        category=request.category,
        recipe=method_recipe(METHODS[request.method], request.arch, false_reject_rate=request.false_reject_rate),
        arch=request.arch,
        weights=request.weights,
        textures=request.textures,
        kind=known_kind(request.category),
        devices=Devices(accelerator=device.type),
        artifacts=artifacts,
    )
    samples = test_samples(request.data, request.category)  # before hours of training, not after
    started = time.perf_counter()
    result = train_category(training, progress)
    seconds, peak, device_peak = time.perf_counter() - started, speed.peak_bytes(), speed.device_peak_bytes()
    artifact = load(result.artifact).ready(device)
    with progress.step("evaluating", len(samples)) as step:
        evaluation = evaluate(artifact, samples, progress=step.reach)
    pictures = [read_image(sample.path) for sample in samples[: speed.TIMED]]
    figures = Figures(
        image_auroc=evaluation.image_auroc,
        pixel_auroc=evaluation.pixel_auroc,
        aupro=evaluation.aupro,
        false_reject_rate=evaluation.false_reject_rate,
        miss_rate=evaluation.miss_rate,
        threshold=evaluation.threshold,
        threshold_rule=evaluation.threshold_rule,
        training_seconds=round(seconds, 3),
        milliseconds=round(speed.milliseconds(artifact, pictures), 3),
        artifact_bytes=result.artifact.stat().st_size,
        peak_bytes=peak,
        device_bytes=device_peak,
    )
    result.artifact.unlink()
    return Cell(
        category=request.category,
        method=request.method,
        key=request.key,
        kind=result.kind,
        stages=tuple(choice.stage for choice in result.choices if choice.kept),
        device=device.type,
        threads=torch.get_num_threads(),
        figures=figures,
    )


def main(path: Path, console: Console) -> None:
    """Measure the cell that a file asks for and write it, whatever comes of it."""
    request = CellRequest.model_validate_json(path.read_bytes())
    try:
        cell = measure(request, Progress(console))
    except Exception as error:  # any cell may fail in any way, and the others go on
        known = isinstance(error, JigSightError)
        if not known:
            traceback.print_exc()
        said = str(error) if known else f"{type(error).__name__}: {error}"
        cell = Cell(category=request.category, method=request.method, key=request.key, error=said)
    write_cell(cell_path(request.output, request.category, request.method), cell)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Console(stderr=True))
    except KeyboardInterrupt:
        sys.exit(130)
