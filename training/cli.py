"""The commands that make artifacts: sample, synth, train, evaluate, demo."""

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from rich.console import Console

from models.artifact import load
from models.backbone import ARCHITECTURES
from models.device import Device, pick_device
from models.errors import DatasetError, JigSightError
from models.heatmaps import encode_png
from models.preprocess import Preprocess, PreprocessConfig
from training.contact_sheet import contact_sheet
from training.datasets import read_image, test_samples, training_images
from training.demo import run_demo
from training.evaluate import evaluate, table
from training.foreground import decide_kind
from training.loop import Devices
from training.pipeline import TrainingRequest, train_category
from training.progress import Progress
from training.recipe import read_recipe, shipped_recipes
from training.report import write_report
from training.samples import CATEGORIES, write_category
from training.synthetic import Synthetic, Use, make_tiles
from training.textures import FolderTextures, ProceduralTextures

KindOption = Literal["auto", "object", "texture"]

_Data = Annotated[
    Path,
    typer.Option(help="Folder of categories, DIR/CATEGORY/train/good/*.png as in MVTec AD, or of good pictures."),
]
_Category = Annotated[str | None, typer.Option(help="Which category of DIR; may be left out for a plain folder.")]
_Textures = Annotated[
    Path | None, typer.Option(help="Folder of texture pictures for synthetic defects. Default: generated ones.")
]
_Json = Annotated[Path | None, typer.Option("--json", help="Also write the result as JSON to this file; - is stdout.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to `app`."""
    for command in (demo, sample, synth, train, evaluate_command):
        app.command(command.__name__.removesuffix("_command"))(command)


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the verdicts instead of serving on.")] = False,
    folder: Annotated[Path, typer.Option("--dir", help="Where parts, artifacts and heatmaps go.")] = Path("demo"),
) -> None:
    """See it all work: make sample parts, train on the good ones, serve, inspect over HTTP.

    Exit status 0 if all good parts passed and at least 80 % of the defective ones failed.
    """
    if not run_demo(folder, once=once, console=Console()):
        raise typer.Exit(1)


def sample(
    directory: Annotated[Path, typer.Argument(help="Where to write DIR/CATEGORY/train, test and ground_truth.")],
    category: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(CATEGORIES)}; may be repeated. Default: all.")
    ] = None,
    train: Annotated[int, typer.Option(min=2, help="Good pictures to train on.")] = 100,
    test_good: Annotated[int, typer.Option(min=0, help="Good pictures to test on.")] = 20,
    test_defective: Annotated[int, typer.Option(min=0, help="Defective pictures of each kind of defect.")] = 5,
    size: Annotated[int, typer.Option(min=64, max=2048, help="Edge of the pictures in pixels.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pictures.")] = 0,
) -> None:
    """Write procedural sample categories, with defects and masks, in the layout of MVTec AD."""
    console = Console(stderr=True)
    progress = Progress(console)
    for name in category or list(CATEGORIES):
        if name not in CATEGORIES:
            raise DatasetError(f"There is no sample category '{name}': there are {', '.join(CATEGORIES)}.")
        total = train + test_good + test_defective * len(CATEGORIES[name].defects)
        with progress.step(f"rendering {name}", total) as step:
            folder = write_category(
                directory,
                name,
                train=train,
                test_good=test_good,
                test_defective=test_defective,
                size=size,
                seed=seed,
                progress=step.reach,
            )
        typer.echo(folder)


def synth(
    data: _Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")] = Path("synthetic-defects.png"),
    category: _Category = None,
    textures: _Textures = None,
    kind: Annotated[KindOption, typer.Option(help="Objects keep defects on the part.")] = "auto",
    count: Annotated[int, typer.Option(min=1, max=100, help="How many examples.")] = 8,
    image_size: Annotated[int, typer.Option(help="Edge of the pictures in pixels, a multiple of 32.")] = 224,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same defects.")] = 0,
) -> None:
    """Draw a contact sheet of synthetic defects: what training takes for defective. Look before you train."""
    paths = training_images(data, category)
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
    preprocess = Preprocess(PreprocessConfig(image_size=image_size))
    images = torch.stack([preprocess.resize(read_image(path)) for path in chosen])
    resolved = decide_kind([image.permute(1, 2, 0).numpy() for image in images]).kind if kind == "auto" else kind
    source = Synthetic(
        make_tiles(images, resolved), FolderTextures(textures) if textures else ProceduralTextures(), seed
    )
    rows = []
    for index in range(count):
        which = index % len(chosen)
        tile, mask = source.draw(which, source.generator(Use.VALIDATION, epoch=index, index=which))
        rows.append((images[which].permute(1, 2, 0).numpy(), tile.permute(1, 2, 0).numpy(), mask))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(encode_png(contact_sheet(rows)))
    typer.echo(output)


def train(
    data: _Data,
    category: _Category = None,
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
    textures: _Textures = None,
    kind: Annotated[
        KindOption, typer.Option(help="object: a part on a background; texture: material that fills the picture.")
    ] = "auto",
    false_reject_rate: Annotated[
        float | None,
        typer.Option(min=0.0001, max=0.5, help="Share of good parts that may be rejected. Default: the recipe's."),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to train; auto takes CUDA if there is one.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="How many devices train the jigsaw and the fusion.")] = 1,
    artifacts: Annotated[Path, typer.Option(help="Where to write CATEGORY/VERSION.safetensors.")] = Path("artifacts"),
    json_file: _Json = None,
) -> None:
    """Train a category on pictures of good parts and write its artifact.

    A run that was interrupted goes on where it was when the same command is given again.
    """
    console = Console(stderr=True)
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
    try:
        result = train_category(request, Progress(console))
    except KeyboardInterrupt:
        console.print("Interrupted. The same command goes on where this one stopped.")
        raise typer.Exit(130) from None
    for warning in result.warnings:
        console.print(f"[bold yellow]warning:[/] {warning}.", highlight=False)
    rate = result.threshold.false_reject_rate
    rule = result.threshold.rule if rate is None else f"{result.threshold.rule}, false-reject rate {rate:g}"
    console.print(
        f"{result.category} {result.version}: threshold {result.threshold.value:.4f} ({rule})", highlight=False
    )
    typer.echo(result.artifact, err=_is_stdout(json_file))
    if json_file is not None:
        _write_json(
            json_file,
            {
                "artifact": str(result.artifact),
                "category": result.category,
                "version": result.version,
                "kind": result.kind,
                "threshold": result.threshold.model_dump(),
                "choices": [choice.model_dump() for choice in result.choices],
                "validation": result.validation,
                "seconds": result.seconds,
                "warnings": list(result.warnings),
            },
        )


def evaluate_command(
    artifact: Annotated[Path, typer.Argument(help="The artifact, artifacts/CATEGORY/VERSION.safetensors.")],
    data: _Data,
    category: Annotated[str | None, typer.Option(help="Default: the artifact's own category.")] = None,
    false_reject_rate: Annotated[
        float | None, typer.Option(min=0.0001, max=0.5, help="Judge at this rate instead of the artifact's own.")
    ] = None,
    device: Annotated[Device, typer.Option(help="auto takes CUDA if there is one.")] = "auto",
    report: Annotated[
        Path | None, typer.Option(help="Folder for a report: index.html, histogram, ROC, heatmaps of the worst errors.")
    ] = None,
    json_file: _Json = None,
) -> None:
    """Measure an artifact on a category's test pictures: AUROC, AUPRO, false rejects and misses."""
    console = Console(stderr=True)
    loaded = load(artifact, device=pick_device(device))
    samples = test_samples(data, category or loaded.manifest.category)
    progress = Progress(console)
    with progress.step("evaluating", len(samples)) as step:
        evaluation = evaluate(loaded, samples, false_reject_rate=false_reject_rate, progress=step.reach)
    Console(stderr=_is_stdout(json_file)).print(table(evaluation))
    if report is not None:
        typer.echo(write_report(evaluation, report), err=_is_stdout(json_file))
    if json_file is not None:
        _write_json(json_file, evaluation.to_json())


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
