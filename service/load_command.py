"""The command `load`: options -> a run of load -> figures and an exit code.

It sends with aiohttp, which only the extra `client` brings: where that is missing, it says so.
"""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from models.destination import check_file
from service.load.errors import LoadError
from service.load.picture_files import read_pictures

if TYPE_CHECKING:
    from service.load.summary import Summary

ALL_JUDGED, SOME_NOT, INTERRUPTED = 0, 1, 130
_OPEN_CONNECTIONS, _CLOSED_CONNECTIONS = 256, 32


def register(app: typer.Typer) -> None:
    """Add the command to an application. It raises LoadError for what it cannot work with."""
    app.command()(load)


def load(
    address: Annotated[str, typer.Argument(help="The server's, as in http://127.0.0.1:8000.")],
    more: Annotated[list[Path] | None, typer.Argument(metavar="[IMAGES]...", help="More of --images.")] = None,
    *,
    category: Annotated[str, typer.Option(help="What the pictures show.")],
    images: Annotated[list[Path], typer.Option(help="A picture, or a folder of them; may be repeated.")],
    rate: Annotated[float | None, typer.Option(min=0.01, help="Pictures a second, whatever the answers.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to send.")] = 30.0,
    saturate: Annotated[
        bool, typer.Option("--saturate", help="Instead of a rate: the next picture when one is answered.")
    ] = False,
    poisson: Annotated[bool, typer.Option("--poisson", help="Irregular arrivals, at the rate on average.")] = False,
    seed: Annotated[int, typer.Option(help="Of --poisson.")] = 0,
    connections: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most at once.", show_default=f"{_OPEN_CONNECTIONS}; {_CLOSED_CONNECTIONS} to saturate"
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that an answer may take, from sending.")] = 30.0,
    serial_prefix: Annotated[str | None, typer.Option(help="Give each picture a serial: this and a number.")] = None,
    idempotent: Annotated[bool, typer.Option("--idempotent", help="Send an Idempotency-Key with each.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to FILE; - is stdout.")] = None,
) -> None:
    """Send pictures to a server at a constant rate; print throughput, latencies, and every answer that is no verdict.

    An API key, where the server asks for one, is taken from JIGSIGHT_KEY: arguments can be read by everybody on this
    machine.

    Latency counts from when a picture was due, so a server that stalls does not look better for it. Nothing is sent
    twice. Exit code 0: all were judged. 1: some were not. 2: it could not run.
    """
    if find_spec("aiohttp") is None:
        raise LoadError("The load generator is not installed here. Install it with: pip install 'jigsight[client]'")
    if (rate is None) != saturate:
        raise LoadError("How fast? Give either --rate PICTURES-A-SECOND or --saturate.")
    if json_file is not None and str(json_file) != "-":
        check_file(json_file, option="--json")
    # Only here: nothing else of the command line needs the extra.
    from service.load.report import print_summary
    from service.load.run import Plan, run
    from service.load.sender import Parts
    from service.load.target import Target

    target = Target(address, category, os.environ.get("JIGSIGHT_KEY"))
    parts = Parts(read_pictures([*images, *(more or [])]), serial_prefix=serial_prefix, idempotent=idempotent)
    plan = Plan(
        rate=rate,
        seconds=seconds,
        connections=connections or (_CLOSED_CONNECTIONS if saturate else _OPEN_CONNECTIONS),
        timeout=timeout,
        poisson_seed=seed if poisson else None,
    )
    summary = run(plan, target, parts, console=Console(stderr=True))
    print_summary(summary, Console(stderr=str(json_file) == "-", highlight=False))
    _write(json_file, summary)
    if summary.interrupted:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(ALL_JUDGED if summary.all_accepted else SOME_NOT)


def _write(json_file: Path | None, summary: "Summary") -> None:
    if json_file is None:
        return
    text = json.dumps(summary.document(), indent=2)
    if str(json_file) == "-":
        typer.echo(text)
    else:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(text + "\n", encoding="utf-8")
