"""The one command: joins training's and service's commands. Nothing imports this module."""

import sys

import typer
from rich.console import Console

import service.cli
import training.cli
from models.errors import JigSightError

app = typer.Typer(
    name="jigsight",
    help="Inspect industrial parts: train on pictures of good parts, get pass or fail and where the defect is.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
training.cli.register(app)
service.cli.register(app)


def main() -> None:
    """Run the command line; an error that was raised on purpose is one sentence, not a traceback."""
    try:
        app()
    except JigSightError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {error}", markup=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
