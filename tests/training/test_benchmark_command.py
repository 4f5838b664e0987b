"""`jigsight benchmark` as a user types it, as far as nothing is measured."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from models.errors import DatasetError, JigSightError
from training.benchmark.method import METHODS
from training.benchmark_command import benchmark


def run(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(benchmark)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_list_has_every_method() -> None:
    said = run("--list")
    assert all(name in said for name in METHODS)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((), JigSightError, "--data DIR"),
        (("--data", "nowhere"), DatasetError, "nowhere does not exist"),
        (("--data", ".", "--methods", "padim,sead"), JigSightError, "no method 'sead'"),
        (("--data", ".", "--methods", "anomalib_padim"), JigSightError, "--peers"),
        (("--data", ".", "--arch", "vgg"), JigSightError, "no architecture 'vgg'"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_made(
    arguments: tuple[str, ...], error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        run(*arguments, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
