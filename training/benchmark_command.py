"""`jigsight benchmark`: categories by methods, to a table, on any folder shaped like MVTec AD."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from models.backbone import ARCHITECTURES
from models.destination import check_folder
from models.device import pick_device
from models.errors import JigSightError
from training import options
from training.benchmark.method import GROUPS, METHODS, chosen_methods
from training.benchmark.peer_environment import peer_environment
from training.benchmark.report import write_report
from training.benchmark.request import BenchmarkRequest, find_categories
from training.benchmark.run import run_benchmark


def benchmark(
    data: Annotated[
        Path | None, typer.Option(help="Folder of categories, DIR/CATEGORY/train/good, test, ground_truth.")
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="One of DIR's categories; may be repeated. Default: all.")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(help=f"Methods or groups ({', '.join(GROUPS)}), with commas or repeated; see --list."),
    ] = None,
    arch: Annotated[str, typer.Option(help=f"The backbone: {', '.join(ARCHITECTURES)}.")] = "wide_resnet50_2",
    weights: Annotated[str, typer.Option(help="imagenet, a .pth or .safetensors state dict, or none.")] = "imagenet",
    textures: options.Textures = None,
    false_reject_rate: Annotated[
        float, typer.Option(min=0.0001, max=0.5, help="Share of good parts that may be rejected.")
    ] = 0.05,
    device: options.AnyDevice = "auto",
    output: Annotated[Path, typer.Option(help="Folder for cells, tables and plot.")] = Path("benchmark"),
    peers: Annotated[bool, typer.Option("--peers", help="Measure anomalib's methods too.")] = False,
    peers_venv: Annotated[
        Path | None,
        typer.Option(help="Environment with anomalib, made if it is not there. Default: OUTPUT/.peers-venv."),
    ] = None,
    list_methods: Annotated[bool, typer.Option("--list", help="Say what methods there are, and end.")] = False,
) -> None:
    """Compare methods over categories: accuracy, thresholds, time, size and memory, as Markdown, CSV and a plot.

    Interrupted, or with cells that failed, the same command goes on with what is missing.
    """
    console = Console(stderr=True)
    if list_methods:
        Console().print(_listing())
        return
    if data is None:
        raise JigSightError("Which pictures? Give --data DIR, a folder of categories as in MVTec AD.")
    if arch not in ARCHITECTURES:
        raise JigSightError(f"There is no architecture '{arch}': there are {', '.join(ARCHITECTURES)}.")
    if peers_venv is not None and not peers:
        raise JigSightError("--peers-venv says where anomalib is; add --peers to run it.")
    if peers and weights == "none":
        raise JigSightError("Peers need weights from a file or imagenet: random ones would differ from JigSight's.")
    check_folder(output, option="--output")
    pick_device(device)
    names = [name.strip() for each in methods or ["all"] for name in each.split(",") if name.strip()]
    chosen = chosen_methods(names, peers=peers)
    categories = find_categories(data, category or [])
    output.mkdir(parents=True, exist_ok=True)
    request = BenchmarkRequest(
        data=data,
        categories=categories,
        methods=chosen,
        arch=arch,
        weights=weights,
        textures=textures,
        false_reject_rate=false_reject_rate,
        device=device,
        output=output,
        peer_python=peer_environment(peers_venv or output / ".peers-venv", console) if peers else None,
    )
    _run(request, console)


def _run(request: BenchmarkRequest, console: Console) -> None:
    try:
        cells = run_benchmark(request, console, after_each=lambda so_far: write_report(request, so_far))
    except KeyboardInterrupt:
        console.print("Interrupted. What is measured is kept; the same command goes on with the rest.")
        raise typer.Exit(130) from None
    typer.echo(request.output / "benchmark.md")
    if failed := [cell for cell in cells if cell.status == "failed"]:
        console.print(f"{len(failed)} of {len(cells)} cells failed; benchmark.md says why.", highlight=False)
        raise typer.Exit(1)


def _listing() -> Table:
    table = Table("method", "what it is", "groups")
    for name, method in METHODS.items():
        groups = [group for group, members in GROUPS.items() if name in members] or ["--peers"]
        table.add_row(name, method.about, ", ".join(groups))
    return table
