"""Training's commands, for the joint command line to take in."""

import typer

from training.benchmark_command import benchmark
from training.evaluate_command import evaluate_command
from training.train_commands import refit, train
from training.trial_commands import demo, sample, synth


def register(app: typer.Typer) -> None:
    """Add training's commands to `app`."""
    for command in (demo, sample, synth, train, refit, evaluate_command, benchmark):
        app.command(command.__name__.removesuffix("_command"))(command)
