"""The commands to look around with before training on one's own parts: demo, sample, synth."""

import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console

from models.destination import check_file, check_folder
from models.errors import DatasetError, RecipeError
from models.heatmaps import encode_png
from models.preprocess import Preprocess, PreprocessConfig
from training import options
from training.contact_sheet import contact_sheet
from training.datasets import training_images
from training.demo import run_demo
from training.picture_files import read_taken
from training.progress import Progress
from training.samples import CATEGORIES, write_category
from training.synthetic import Synthetic, Use, kind_of, make_tiles
from training.textures import open_textures


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the verdicts instead of serving on.")] = False,
    folder: Annotated[Path, typer.Option("--dir", help="Where parts, artifacts and heatmaps go.")] = Path("demo"),
) -> None:
    """See it all work: make sample parts, train on the good ones, serve, inspect over HTTP.

    Exit status 0 if all good parts passed and at least 80 % of the defective ones failed.
    """
    check_folder(folder, option="--dir")
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
    check_folder(directory, option="DIRECTORY")
    progress = Progress(Console(stderr=True))
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
    data: options.Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")] = Path("synthetic-defects.png"),
    category: options.Category = None,
    textures: options.Textures = None,
    kind: Annotated[options.Kind, typer.Option(help="Objects keep defects on the part.")] = "auto",
    count: Annotated[int, typer.Option(min=1, max=100, help="How many examples.")] = 8,
    image_size: Annotated[
        int, typer.Option(min=32, max=2048, help="Edge of the pictures in pixels, a multiple of 32.")
    ] = 224,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same defects.")] = 0,
) -> None:
    """Draw a contact sheet of synthetic defects: what training takes for defective. Look before you train."""
    check_file(output, option="--output")
    if image_size % 32:
        raise RecipeError(f"--image-size must be a multiple of 32, not {image_size}.")
    paths = training_images(data, category)
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
    preprocess = Preprocess(PreprocessConfig(image_size=image_size, reduced_jpeg=True))
    images = torch.stack([read_taken(path, preprocess).tile for path in chosen])
    resolved = kind_of(images).kind if kind == "auto" else kind
    tiles = make_tiles(images, resolved, folder=Path(tempfile.gettempdir()))
    source = Synthetic(tiles, open_textures(textures), seed)
    rows = []
    for index in range(count):
        which = index % len(chosen)
        tile, mask = source.draw(which, source.generator(Use.VALIDATION, epoch=index, index=which))
        rows.append((images[which].permute(1, 2, 0).numpy(), tile.permute(1, 2, 0).numpy(), mask))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(encode_png(contact_sheet(rows)))
    typer.echo(output)
