"""The one command: joins training's and service's commands. Nothing imports this module.

A server may lack the `training` extra: then `serve` and `inspect` work, and the others say what to install.
"""

import sys
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

import service.cli
from models.cores import use_cores
from models.errors import JigSightError
from service.version import installed_version

_MODULES_OF_THE_EXTRA = ("lightning_fabric", "matplotlib")
_COMMANDS_OF_THE_EXTRA = ("demo", "sample", "synth", "train", "refit", "evaluate", "benchmark")
_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True}

app = typer.Typer(
    name="jigsight",
    help="Inspect industrial parts: train on pictures of good parts, get pass or fail and where the defect is.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jigsight {installed_version()}")
        raise typer.Exit


@app.callback()
def _options(
    say_version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version, and end.")
    ] = False,
) -> None:
    """What is said of no command in particular."""


def _register_training() -> None:
    try:
        import training.cli
    except ModuleNotFoundError as error:
        if error.name in _MODULES_OF_THE_EXTRA:
            for name in _COMMANDS_OF_THE_EXTRA:
                app.command(name, hidden=True, context_settings=_ANYTHING)(_missing)
            return
        raise
    training.cli.register(app)


def _missing() -> NoReturn:
    raise JigSightError("Training is not installed here. Install it with: pip install 'jigsight[training]'")


_register_training()
service.cli.register(app)


def main() -> None:
    """Run the command line; what the person at it can mend is one sentence, not a traceback."""
    use_cores()
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
