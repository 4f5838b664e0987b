"""The one command: joins training's and service's commands. Nothing imports this module."""

import sys

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

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
    """Run the command line; what the person at it can mend is one sentence, not a traceback."""
    try:
        app()
    except (JigSightError, OSError, ValidationError) as error:
        # As text, not as rich's markup: a path may hold brackets.
        message = Text.assemble(("error:", "bold red"), " ", _sentence(error))
        Console(stderr=True, soft_wrap=True, highlight=False).print(message)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _sentence(error: JigSightError | OSError | ValidationError) -> str:
    if isinstance(error, ValidationError):
        flaws = (f"{'.'.join(map(str, flaw['loc']))}: {flaw['msg']}" for flaw in error.errors())
        return f"These values cannot be used: {'; '.join(flaws)}."
    if isinstance(error, OSError):
        return f"{error.filename or 'The system says'}: {error.strerror or error}."
    return str(error)


if __name__ == "__main__":
    main()
