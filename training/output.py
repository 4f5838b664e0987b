"""Where a command's results go: JSON to a file or stdout, warnings to people."""

import json
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from models.destination import check_file, check_folder


def check_outputs(json_file: Path | None, *, folders: dict[str, Path]) -> None:
    """Refuse places that cannot be written to now, not after the work."""
    for option, folder in folders.items():
        check_folder(folder, option=option)
    if json_file is not None and not is_stdout(json_file):
        check_file(json_file, option="--json")


def warn(text: str, console: Console) -> None:
    """Something that a person should know, though the work goes on."""
    console.print(Text.assemble(("warning: ", "bold yellow"), text))


def is_stdout(file: Path | None) -> bool:
    """Whether the JSON goes to stdout, which then holds nothing else."""
    return str(file) == "-"


def write_json(file: Path, document: object) -> None:
    """Write `document` as JSON to `file`, or to stdout."""
    text = json.dumps(document, indent=2, sort_keys=True)
    if is_stdout(file):
        typer.echo(text)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
