"""The commands `serve` and `inspect`; `load` and `keys` have modules of their own.

Settings come from `JIGSIGHT_*` in the environment; options override them. What keeps a command from its work
is raised as a JigSightError, for `jigsight.py` to say.
"""

import json
import socket
from collections import Counter
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from models.allocator import keep_memory
from models.artifact import Artifact, load
from models.destination import check_no_file
from models.device import Device, pick_device
from models.locate_artifact import find_artifact
from models.precision import Precision, pick_precision
from service import keys_command, load_command
from service.access.open_mode import check_exposure
from service.announcement import announcement
from service.app import create_app
from service.errors import StartupError
from service.logs import start_logging
from service.offline import Finding, findings
from service.pictures import open_place
from service.server import Server
from service.settings import KeepImages, Settings, read_settings
from service.state import Service
from service.storage.database import open_database
from service.storage.keys import Keys

_UNLIMITED = 100_000  # columns
ALL_PASS, SOME_FAIL, NOT_ALL_DONE = 0, 1, 2
_PRECISION = (
    "What the network computes in. auto: bfloat16 where the processor or GPU has it, which is nearly twice as fast and "
    "moves scores by about a percent; else float16 on a GPU, float32 on a CPU."
)


def register(app: typer.Typer) -> None:
    """Add the commands to an application. They raise JigSightError for what they cannot work with."""
    app.command()(serve)
    app.command()(inspect)
    load_command.register(app)
    keys_command.register(app)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes any free one.", show_default="8000")] = None,
    artifacts: Annotated[Path | None, typer.Option(help="Folder of artifacts.", show_default="artifacts")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder for the database and kept pictures.", show_default="inspections")
    ] = None,
    device: Annotated[Device | None, typer.Option(help="Where to judge.", show_default="auto")] = None,
    precision: Annotated[Precision | None, typer.Option(help=_PRECISION, show_default="auto")] = None,
    keep_images: Annotated[KeepImages | None, typer.Option(help="Which pictures to keep.", show_default="all")] = None,
    preload: Annotated[
        bool | None, typer.Option("--preload", help="Load all active artifacts at start, not on first use.")
    ] = None,
) -> None:
    """Judge pictures over HTTP, with every artifact of a folder. Ctrl-C ends it.

    Each option can be set in the environment too, as JIGSIGHT_HOST, JIGSIGHT_PORT and so on, and so can
    JIGSIGHT_DATABASE_URL, JIGSIGHT_MAX_BODY_BYTES and all the others in docs/settings.md.

    Without an API key (`jigsight keys create`) it listens on this machine only.
    """
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "artifacts": artifacts,
        "data": data,
        "device": device,
        "precision": precision,
        "keep_images": keep_images,
        "preload": preload,
    }
    keep_memory()
    settings = read_settings(**given)
    _check(settings)
    listener = _listen(settings.host, settings.port)
    start_logging(settings.log_format)
    with listener:
        Server(create_app(settings), settings, announce=partial(_announce, listener)).serve_until_told(listener)


def inspect(
    artifact: Annotated[
        Path,
        typer.Argument(
            help="artifacts/CATEGORY/VERSION.safetensors, or artifacts/CATEGORY for its newest (not: active)."
        ),
    ],
    images: Annotated[list[Path], typer.Argument(help="Picture files.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    heatmaps: Annotated[Path | None, typer.Option(help="Write an overlay for each picture into DIR.")] = None,
    false_reject_rate: Annotated[
        float | None, typer.Option(min=0.0001, max=0.5, help="Judge at this rate instead of the artifact's own.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to judge.")] = "auto",
    precision: Annotated[Precision, typer.Option(help=_PRECISION)] = "auto",
) -> None:
    """Judge picture files without a server.

    Exit code 0: every part passes. 1: all were judged and at least one fails. 2: at least one picture, or the
    artifact, could not be read, or a heatmap not be written; what could be judged is printed all the same.
    """
    keep_memory()
    found = find_artifact(artifact)
    if found != artifact:
        typer.echo(f"Judging with {found}.", err=True)
    loaded = load(found).ready(pick_device(device), precision=precision)
    threshold = None if false_reject_rate is None else _threshold(loaded, false_reject_rate)
    judged = findings(loaded, images, heatmaps=heatmaps, threshold=threshold)
    messages = Console(stderr=True)
    results = list(track(judged, "judging", total=len(images), console=messages, transient=True))
    if as_json:
        typer.echo(json.dumps(_document(loaded, results), indent=2))
    else:
        _print_table(loaded, results)
    for each in results:
        if not each.complete:
            typer.echo(f"{each.path}: {each.error or each.heatmap_error}", err=True)
    raise typer.Exit(_exit_code(results))


def _threshold(artifact: Artifact, rate: float) -> float:
    """The threshold for a false-reject rate; says so where the good pictures were too few for it."""
    least = artifact.calibration.attainable_alpha
    if rate < least:
        count = artifact.manifest.dataset.images
        typer.echo(f"warning: {count} good pictures cannot vouch for a rate of {rate:g}; expect {least:.2g}.", err=True)
    return artifact.calibration.threshold(rate)


def _announce(listener: socket.socket, service: Service) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    typer.echo(announcement(address, service.registry, without_keys=service.guard.open))


def _check(settings: Settings) -> None:
    """Find here what would keep the service from starting, where it can be said without a traceback."""
    if not settings.artifacts.is_dir():
        raise StartupError(
            f"There is no folder {settings.artifacts}. Train a category with `jigsight train --artifacts "
            f"{settings.artifacts}`, or name the folder with --artifacts."
        )
    check_no_file(settings.data, option="--data")
    pick_precision(settings.precision, pick_device(settings.device))
    open_place(settings)
    with closing(open_database(settings.url)) as database:
        check_exposure(settings.host, Keys(database))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise StartupError(f"Cannot listen on {host}, port {port}: {error.strerror}. Choose another --port.") from error


def _exit_code(results: list[Finding]) -> int:
    if not all(each.complete for each in results):
        return NOT_ALL_DONE
    return SOME_FAIL if any(each.judgement and each.judgement.verdict == "fail" for each in results) else ALL_PASS


def _print_table(artifact: Artifact, results: list[Finding]) -> None:
    """Fitted to a terminal; a file or a program gets a line a picture, however long, with its whole path."""
    console = Console()
    if not console.is_terminal:
        console.width = _UNLIMITED
    console.print(_table(artifact, results, brief=console.is_terminal))


def _table(artifact: Artifact, results: list[Finding], *, brief: bool) -> Table:
    # Without lines, which would take a quarter of a usual terminal from the pictures' names.
    table = Table(title=f"{artifact.manifest.category}, version {artifact.version}", box=None, pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    folder = next((each.heatmap.parent for each in results if each.heatmap is not None), None)
    if folder is not None:
        table.caption = f"→ heatmaps, in {escape(str(folder))}"
    # Pictures are told by the end of their path: that column wraps where the terminal is narrow, and none is cut.
    table.add_column("picture", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for heading in ("score", "threshold", "margin", "p-value", "regions"):
        table.add_column(heading, justify="right", no_wrap=True)
    names = _brief_names(results) if brief else [str(each.path) for each in results]
    for each, name in zip(results, names, strict=True):
        apart = "\n" if brief else " "
        picture = escape(name if each.heatmap is None else f"{name}{apart}→ {each.heatmap.name}")
        if each.judgement is None:
            table.add_row(picture, "[yellow]not judged[/]")
            continue
        colour = "red" if each.judgement.verdict == "fail" else "green"
        judged = each.judgement
        numbers = (judged.score, judged.threshold, judged.margin, judged.p_value)
        table.add_row(
            picture,
            f"[{colour}]{each.judgement.verdict}[/]",
            *(f"{number:.4g}" for number in numbers),
            str(len(each.judgement.regions)),
        )
    return table


def _brief_names(results: list[Finding]) -> list[str]:
    """What the pictures are called, each by its whole path where others would be called the same."""
    brief = [_brief(each.path) for each in results]
    count = Counter(brief)
    return [name if count[name] == 1 else str(each.path) for each, name in zip(results, brief, strict=True)]


def _brief(path: Path) -> str:
    """A path's folder and file, with "…" for what leads there."""
    return f"…/{path.parent.name}/{path.name}" if len(path.parts) > 2 else str(path)


def _document(artifact: Artifact, results: list[Finding]) -> dict[str, Any]:
    return {
        "category": artifact.manifest.category,
        "version": artifact.version,
        "images": [_entry(each) for each in results],
    }


def _entry(finding: Finding) -> dict[str, Any]:
    if finding.judgement is None or finding.size is None:
        return {"path": str(finding.path), "verdict": None, "error": finding.error}
    height, width = finding.size
    judged = asdict(finding.judgement) | {"margin": finding.judgement.margin}
    entry = {"path": str(finding.path), "width": width, "height": height, **judged}
    if finding.heatmap_error is not None:
        return entry | {"heatmap": None, "heatmap_error": finding.heatmap_error}
    return entry | ({"heatmap": str(finding.heatmap)} if finding.heatmap else {})
