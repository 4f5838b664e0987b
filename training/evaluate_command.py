"""The command that measures an artifact."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.allocator import keep_memory
from models.artifact import Artifact, load
from models.device import pick_device
from models.locate_artifact import find_artifact
from training import options
from training.datasets import test_samples
from training.evaluate import evaluate
from training.evaluation_table import table
from training.output import check_outputs, is_stdout, warn, write_json
from training.progress import Progress
from training.report import write_report


def evaluate_command(
    artifact: options.Artifact,
    data: options.Data,
    category: Annotated[str | None, typer.Option(help="Default: the artifact's own category.")] = None,
    false_reject_rate: Annotated[
        float | None, typer.Option(min=0.0001, max=0.5, help="Judge at this rate instead of the artifact's own.")
    ] = None,
    device: options.AnyDevice = "auto",
    precision: options.AnyPrecision = "auto",
    report: Annotated[
        Path | None, typer.Option(help="Folder for a report: index.html, histogram, ROC, heatmaps of the worst errors.")
    ] = None,
    json_file: options.Json = None,
) -> None:
    """Measure an artifact on a category's test pictures: AUROC, AUPRO, false rejects and misses.

    A folder of pictures without test/ or train/ is taken for good parts alone: then only false rejects are measured.
    """
    keep_memory()
    console = Console(stderr=True)
    check_outputs(json_file, folders={} if report is None else {"--report": report})
    found = find_artifact(artifact)
    if found != artifact:
        console.print(f"Evaluating {found}.", markup=False, highlight=False, soft_wrap=True)
    loaded = load(found).ready(pick_device(device), precision=precision)
    _warn_of_unattainable(loaded, false_reject_rate, console)
    samples = test_samples(data, category or loaded.manifest.category)
    if all(sample.is_good for sample in samples):
        console.print(f"All {len(samples)} pictures are taken for good parts.", highlight=False)
    with Progress(console).step("evaluating", len(samples)) as step:
        evaluation = evaluate(loaded, samples, false_reject_rate=false_reject_rate, progress=step.reach)
    if evaluation.seen_in_training:
        warn("these are the good pictures that it was trained on: others will be rejected more often.", console)
    Console(stderr=is_stdout(json_file)).print(table(evaluation))
    if report is not None:
        typer.echo(write_report(evaluation, report), err=is_stdout(json_file))
    if json_file is not None:
        write_json(json_file, evaluation.to_json())


def _warn_of_unattainable(artifact: Artifact, rate: float | None, console: Console) -> None:
    least = artifact.calibration.attainable_alpha
    if rate is not None and rate < least:
        warn(
            f"{artifact.manifest.dataset.images} good pictures cannot vouch for a false-reject rate of {rate:g}, only "
            f"for {least:.2g} or more. The threshold is the highest score among them; expect {least:.2g}.",
            console,
        )
