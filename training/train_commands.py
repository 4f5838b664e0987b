"""The commands that make artifacts: train, and refit with more pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from safetensors import SafetensorError

from models.allocator import keep_memory
from models.backbone import ARCHITECTURES
from models.device import Device, pick_device
from models.errors import JigSightError
from models.locate_artifact import find_artifact
from models.precision import Precision, pick_precision
from training import options, train_options
from training.loop import Devices
from training.output import check_outputs, is_stdout, warn, write_json
from training.pipeline import train_category
from training.progress import Progress
from training.recipe import read_recipe
from training.refit import refit_category
from training.request import TrainingRequest, TrainingResult


def train(
    data: options.Data,
    category: options.Category = None,
    recipe: train_options.Recipe = "default",
    arch: train_options.Arch = "wide_resnet50_2",
    weights: train_options.Weights = "imagenet",
    textures: options.Textures = None,
    scorer: train_options.Scorer = None,
    image_size: train_options.ImageSize = None,
    tiles: train_options.Tiles = None,
    align: train_options.Align = None,
    ignore: train_options.Ignore = None,
    kind: train_options.Kind = "auto",
    false_reject_rate: train_options.FalseRejectRate = None,
    device: train_options.Where = "auto",
    devices: train_options.HowMany = 1,
    precision: options.AnyPrecision = "auto",
    artifacts: options.Artifacts = Path("artifacts"),
    json_file: options.Json = None,
) -> None:
    """Train a category on pictures of good parts and write its artifact.

    A run that was interrupted goes on where it was when the same command is given again.
    """
    console = Console(stderr=True)
    check_outputs(json_file, folders={"--artifacts": artifacts})
    if arch not in ARCHITECTURES:
        raise JigSightError(f"There is no architecture '{arch}': there are {', '.join(ARCHITECTURES)}.")
    overrides = _overrides(
        calibration={"false_reject_rate": false_reject_rate},
        scorer={"name": scorer},
        preprocess={"image_size": image_size, "tiles": tiles},
        alignment={"use": align},
    )
    request = TrainingRequest(
        data=data,
        category=category,
        recipe=read_recipe(recipe, overrides=overrides),
        ignore=ignore,
        arch=arch,
        weights=weights,
        textures=textures,
        kind=kind,
        devices=_devices(device, precision, count=devices),
        artifacts=artifacts,
    )
    if weights == "none":
        console.print(
            "[bold yellow]The backbone starts from random weights.[/] That is for trials: a detector for production "
            "needs --weights imagenet or a file."
        )
    result = _run(
        lambda: train_category(request, Progress(console)),
        artifacts=artifacts,
        again="goes on where this one stopped",
        console=console,
    )
    _conclude(result, json_file, console)


def refit(
    artifact: options.Artifact,
    data: options.Data,
    category: Annotated[str | None, typer.Option(help="Which category of DIR. Default: the artifact's own.")] = None,
    add: Annotated[
        list[Path] | None, typer.Option(help="One more folder of pictures of good parts; may be repeated.")
    ] = None,
    false_reject_rate: Annotated[
        float | None,
        typer.Option(min=0.0001, max=0.5, help="Share of good parts that may be rejected. Default: the artifact's."),
    ] = None,
    device: options.AnyDevice = "auto",
    precision: options.AnyPrecision = "auto",
    artifacts: options.Artifacts = Path("artifacts"),
    json_file: options.Json = None,
) -> None:
    """Fit an artifact's scorer and threshold again, to more pictures of good parts: minutes instead of a training.

    Alignment, backbone, fusion and settings stay as they were chosen. Give all pictures that are to count: the old
    ones with --data, new ones there too or with --add. The artifact that is refitted stays as it is.
    """
    console = Console(stderr=True)
    check_outputs(json_file, folders={"--artifacts": artifacts})
    found = find_artifact(artifact)
    console.print(f"Refitting {found}.", markup=False, highlight=False, soft_wrap=True)
    result = _run(
        lambda: refit_category(
            found,
            data=data,
            category=category,
            added=add or [],
            false_reject_rate=false_reject_rate,
            devices=_devices(device, precision),
            artifacts=artifacts,
            progress=Progress(console),
        ),
        artifacts=artifacts,
        again="begins anew, and takes minutes",
        console=console,
    )
    _conclude(result, json_file, console)


def _devices(device: Device, precision: Precision, *, count: int = 1) -> Devices:
    """Where to compute and in what. Raises DeviceError now, and not after hours, for what the device cannot do."""
    place = pick_device(device)
    pick_precision(precision, place)
    return Devices(accelerator=place.type, count=count, precision=precision)


def _overrides(**sections: dict[str, object]) -> dict[str, dict[str, object]]:
    """The settings that were given, by section."""
    given = {
        section: {name: value for name, value in settings.items() if value is not None}
        for section, settings in sections.items()
    }
    return {section: settings for section, settings in given.items() if settings}


def _run(work: Callable[[], TrainingResult], *, artifacts: Path, again: str, console: Console) -> TrainingResult:
    """`work`, and what the same command would do if it is interrupted: `again`."""
    keep_memory()
    try:
        return work()
    except KeyboardInterrupt:
        console.print(f"Interrupted. The same command {again}.")
        raise typer.Exit(130) from None
    except SafetensorError as error:  # what writing an artifact to a full disk ends in
        raise JigSightError(
            f"The artifact cannot be written to {artifacts}: {error}. Make room or give another --artifacts; "
            f"the same command {again}."
        ) from error


def _conclude(result: TrainingResult, json_file: Path | None, console: Console) -> None:
    _say_result(result, console)
    typer.echo(result.artifact, err=is_stdout(json_file))
    if json_file is not None:
        write_json(json_file, _document(result))


def _say_result(result: TrainingResult, console: Console) -> None:
    for warning in result.warnings:
        warn(f"{warning}.", console)
    rate = result.threshold.false_reject_rate
    rule = result.threshold.rule if rate is None else f"{result.threshold.rule}, false-reject rate {rate:g}"
    said = f"{result.category} {result.version}: threshold {result.threshold.value:.4f} ({rule})"
    console.print(said, markup=False, highlight=False)
    console.print(_time_line(result.seconds), markup=False, highlight=False)


def _time_line(seconds: Mapping[str, float]) -> str:
    """Where the time went, the longest first."""
    stages = sorted(seconds.items() - {("total", seconds["total"])}, key=lambda stage: -stage[1])
    return f"time: {seconds['total']:.1f} s; " + ", ".join(f"{name} {spent:.1f}" for name, spent in stages)


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
