"""The commands that make artifacts and measure them, train and evaluate; it registers the others too."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text
from safetensors import SafetensorError

from models.artifact import Artifact, load
from models.backbone import ARCHITECTURES
from models.device import Device, pick_device
from models.errors import JigSightError
from models.locate_artifact import find_artifact
from training import options
from training.datasets import test_samples
from training.destination import check_file, check_folder
from training.evaluate import evaluate, table
from training.loop import Devices
from training.pipeline import TrainingRequest, TrainingResult, train_category
from training.progress import Progress
from training.recipe import read_recipe, shipped_recipes
from training.report import write_report
from training.trial_commands import demo, sample, synth


def register(app: typer.Typer) -> None:
    """Add training's commands to `app`."""
    for command in (demo, sample, synth, train, evaluate_command):
        app.command(command.__name__.removesuffix("_command"))(command)


def train(
    data: options.Data,
    category: options.Category = None,
    recipe: Annotated[
        str, typer.Option(help=f"{', '.join(shipped_recipes())}, or a TOML file (copy one of training/recipes).")
    ] = "default",
    arch: Annotated[str, typer.Option(help=f"The backbone: {', '.join(ARCHITECTURES)}.")] = "wide_resnet50_2",
    weights: Annotated[
        str,
        typer.Option(
            help="imagenet (downloaded once by torchvision), a .pth or .safetensors state dict, a JigSight artifact "
            "whose backbone to start from, or none (random: for trials only)."
        ),
    ] = "imagenet",
    textures: options.Textures = None,
    kind: Annotated[
        options.Kind, typer.Option(help="object: a part on a background; texture: material that fills the picture.")
    ] = "auto",
    false_reject_rate: Annotated[
        float | None,
        typer.Option(min=0.0001, max=0.5, help="Share of good parts that may be rejected. Default: the recipe's."),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to train; auto takes CUDA if there is one.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="How many devices train the jigsaw and the fusion.")] = 1,
    artifacts: Annotated[Path, typer.Option(help="Where to write CATEGORY/VERSION.safetensors.")] = Path("artifacts"),
    json_file: options.Json = None,
) -> None:
    """Train a category on pictures of good parts and write its artifact.

    A run that was interrupted goes on where it was when the same command is given again.
    """
    console = Console(stderr=True)
    _check_outputs(json_file, folders={"--artifacts": artifacts})
    if arch not in ARCHITECTURES:
        raise JigSightError(f"There is no architecture '{arch}': there are {', '.join(ARCHITECTURES)}.")
    request = TrainingRequest(
        data=data,
        category=category,
        recipe=read_recipe(recipe, false_reject_rate=false_reject_rate),
        arch=arch,
        weights=weights,
        textures=textures,
        kind=kind,
        devices=Devices(accelerator=pick_device(device).type, count=devices),
        artifacts=artifacts,
    )
    if weights == "none":
        console.print(
            "[bold yellow]The backbone starts from random weights.[/] That is for trials: a detector for production "
            "needs --weights imagenet or a file."
        )
    result = _train(request, console)
    _say_result(result, console)
    typer.echo(result.artifact, err=_is_stdout(json_file))
    if json_file is not None:
        _write_json(json_file, _document(result))


def evaluate_command(
    artifact: Annotated[
        Path, typer.Argument(help="artifacts/CATEGORY/VERSION.safetensors, or artifacts/CATEGORY for its newest.")
    ],
    data: options.Data,
    category: Annotated[str | None, typer.Option(help="Default: the artifact's own category.")] = None,
    false_reject_rate: Annotated[
        float | None, typer.Option(min=0.0001, max=0.5, help="Judge at this rate instead of the artifact's own.")
    ] = None,
    device: Annotated[Device, typer.Option(help="auto takes CUDA if there is one.")] = "auto",
    report: Annotated[
        Path | None, typer.Option(help="Folder for a report: index.html, histogram, ROC, heatmaps of the worst errors.")
    ] = None,
    json_file: options.Json = None,
) -> None:
    """Measure an artifact on a category's test pictures: AUROC, AUPRO, false rejects and misses."""
    console = Console(stderr=True)
    _check_outputs(json_file, folders={} if report is None else {"--report": report})
    found = find_artifact(artifact)
    if found != artifact:
        console.print(f"Evaluating {found}.", markup=False, highlight=False, soft_wrap=True)
    loaded = load(found, device=pick_device(device))
    _warn_of_unattainable(loaded, false_reject_rate, console)
    samples = test_samples(data, category or loaded.manifest.category)
    with Progress(console).step("evaluating", len(samples)) as step:
        evaluation = evaluate(loaded, samples, false_reject_rate=false_reject_rate, progress=step.reach)
    Console(stderr=_is_stdout(json_file)).print(table(evaluation))
    if report is not None:
        typer.echo(write_report(evaluation, report), err=_is_stdout(json_file))
    if json_file is not None:
        _write_json(json_file, evaluation.to_json())


def _check_outputs(json_file: Path | None, *, folders: dict[str, Path]) -> None:
    """Refuse places that cannot be written to now, not after the work."""
    for option, folder in folders.items():
        check_folder(folder, option=option)
    if json_file is not None and not _is_stdout(json_file):
        check_file(json_file, option="--json")


def _train(request: TrainingRequest, console: Console) -> TrainingResult:
    try:
        return train_category(request, Progress(console))
    except KeyboardInterrupt:
        console.print("Interrupted. The same command goes on where this one stopped.")
        raise typer.Exit(130) from None
    except SafetensorError as error:  # what writing an artifact to a full disk ends in
        raise JigSightError(
            f"The artifact cannot be written to {request.artifacts}: {error}. Make room or give another --artifacts; "
            "the same command goes on where this one stopped."
        ) from error


def _say_result(result: TrainingResult, console: Console) -> None:
    for warning in result.warnings:
        _warn(f"{warning}.", console)
    rate = result.threshold.false_reject_rate
    rule = result.threshold.rule if rate is None else f"{result.threshold.rule}, false-reject rate {rate:g}"
    said = f"{result.category} {result.version}: threshold {result.threshold.value:.4f} ({rule})"
    console.print(said, markup=False, highlight=False)


def _warn(text: str, console: Console) -> None:
    console.print(Text.assemble(("warning: ", "bold yellow"), text))


def _warn_of_unattainable(artifact: Artifact, rate: float | None, console: Console) -> None:
    least = artifact.calibration.attainable_alpha
    if rate is not None and rate < least:
        _warn(
            f"{artifact.manifest.dataset.images} good pictures cannot vouch for a false-reject rate of {rate:g}, only "
            f"for {least:.2g} or more. The threshold is the highest score among them; expect {least:.2g}.",
            console,
        )


def _document(result: TrainingResult) -> dict[str, object]:
    return {
        "artifact": str(result.artifact),
        "category": result.category,
        "version": result.version,
        "kind": result.kind,
        "threshold": result.threshold.value,
        "threshold_rule": result.threshold.rule,
        "alpha": result.threshold.false_reject_rate,
        "choices": [choice.model_dump() for choice in result.choices],
        "validation": result.validation,
        "seconds": result.seconds,
        "warnings": list(result.warnings),
    }


def _is_stdout(file: Path | None) -> bool:
    """Whether the JSON goes to stdout, which then holds nothing else."""
    return str(file) == "-"


def _write_json(file: Path, document: object) -> None:
    text = json.dumps(document, indent=2, sort_keys=True)
    if _is_stdout(file):
        typer.echo(text)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
