"""What `jigsight train` can be told and no other command; `training.options` has the rest."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from models.backbone import ARCHITECTURES
from models.device import Device
from training import options
from training.recipe import shipped_recipes

Recipe = Annotated[
    str, typer.Option(help=f"{', '.join(shipped_recipes())}, or a TOML file (copy one of training/recipes).")
]
Arch = Annotated[str, typer.Option(help=f"The backbone: {', '.join(ARCHITECTURES)}.")]
Weights = Annotated[
    str,
    typer.Option(
        help="imagenet (downloaded once by torchvision), a .pth or .safetensors state dict, a JigSight artifact "
        "whose backbone to start from, or none (random: for trials only)."
    ),
]
Scorer = Annotated[
    Literal["gaussian", "memory_bank", "coupled", "dense_gaussian"] | None,
    typer.Option(help="gaussian, memory_bank (PatchCore), coupled (CFA) or dense_gaussian. Default: the recipe's."),
]
ImageSize = Annotated[
    int | None,
    typer.Option(min=32, max=2048, help="Edge of what the network sees in pixels, a multiple of 32. Default: 224."),
]
Tiles = Annotated[
    int | None,
    typer.Option(min=1, max=8, help="Cut pictures into N x N such squares, for defects too small otherwise."),
]
Align = Annotated[
    Literal["choose", "always", "never"] | None,
    typer.Option(help="Bring parts into one place and direction: choose (where it helps), always or never."),
]
Ignore = Annotated[
    Path | None, typer.Option(help="PNG in which is painted what not to look at: fixtures, moving backgrounds.")
]
Kind = Annotated[
    options.Kind, typer.Option(help="object: a part on a background; texture: material that fills the picture.")
]
FalseRejectRate = Annotated[
    float | None,
    typer.Option(min=0.0001, max=0.5, help="Share of good parts that may be rejected. Default: the recipe's."),
]
Where = Annotated[Device, typer.Option(help="Where to train; auto takes CUDA if there is one.")]
HowMany = Annotated[int, typer.Option(min=1, help="How many devices train the jigsaw and the fusion.")]
