"""Command-line options that several of training's commands take."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from models.device import Device
from models.precision import Precision

Kind = Literal["auto", "object", "texture"]

Data = Annotated[
    Path,
    typer.Option(help="Folder of categories, DIR/CATEGORY/train/good/*.png as in MVTec AD, or of good pictures."),
]
Category = Annotated[
    str | None, typer.Option(help="Which category of DIR; for a plain folder of pictures, what to call it.")
]
Artifact = Annotated[
    Path, typer.Argument(help="artifacts/CATEGORY/VERSION.safetensors, or artifacts/CATEGORY for its newest.")
]
Artifacts = Annotated[Path, typer.Option(help="Where to write CATEGORY/VERSION.safetensors.")]
AnyDevice = Annotated[Device, typer.Option(help="auto takes CUDA if there is one.")]
AnyPrecision = Annotated[
    Precision,
    typer.Option(
        help="What the network computes in. auto: bfloat16 where the processor or GPU has it, which is nearly twice as "
        "fast and moves scores by about a percent; else float16 on a GPU, float32 on a CPU. bfloat16 works on any CPU, "
        "but slowly on one without it."
    ),
]
Textures = Annotated[
    Path | None, typer.Option(help="Folder of texture pictures for synthetic defects. Default: generated ones.")
]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the result as JSON to this file; - is stdout.")]
