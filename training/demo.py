"""`jigsight demo`: sample parts -> train -> serve -> POST images -> verdicts, all through the real interfaces.

It promises that all good parts pass and most defective ones fail, and says so where they do not.
"""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.backbone import Architecture, build_backbone
from models.errors import JigSightError, WeightsError
from models.weights import IMAGENET, NONE, load_weights
from training.datasets import TestSample, test_samples
from training.demo_server import Server, serving
from training.loop import Devices
from training.pipeline import train_category
from training.progress import Progress
from training.recipe import Recipe, read_recipe
from training.request import TrainingRequest, TrainingResult
from training.samples import CATEGORIES, write_category

_ARCH: Architecture = "resnet18"
_TRAINED_ON = 150
_SAMPLE_SEED = 3
_MARKER = ".jigsight-demo"
_SHOWN_GOOD, _SHOWN_PER_DEFECT = 5, 2
_CAUGHT = 0.8  # the share of defective parts that the demo promises to find


@dataclass(frozen=True)
class Shown:
    """One part that was inspected: what it is, what the service said, and where the heatmap lies."""

    category: str
    sample: TestSample
    inspection: dict[str, Any]
    heatmap: Path

    @property
    def right(self) -> bool:
        """Whether the verdict fits the truth."""
        return bool((self.inspection["verdict"] == "pass") == (self.sample.defect == "good"))


def run_demo(folder: Path, *, once: bool, console: Console) -> bool:
    """Run the demo in `folder`; True if every shown part was judged as promised."""
    _clear(folder)
    objects = [name for name, category in CATEGORIES.items() if category.kind == "object"]
    textures = [name for name, category in CATEGORIES.items() if category.kind == "texture"]
    start = _starting_weights(console)
    results = [_train(folder, name, start, console) for name in objects]
    # A texture has no jigsaw of its own: without ImageNet weights it borrows what the object's has learnt.
    borrowed = str(results[0].artifact) if start == NONE else start
    results += [_train(folder, name, borrowed, console) for name in textures]
    with serving(folder, console) as server:
        console.rule("inspecting over HTTP")
        shown = [
            _inspect(server, folder, result.category, sample)
            for result in results
            for sample in _samples(folder, result.category)
        ]
        console.print("Heatmaps:")
        for one in shown:
            console.print(f"  {one.heatmap}", highlight=False, markup=False, soft_wrap=True)
        console.print(_table(shown))
        kept = _promise_kept(shown, console)
        if not once:
            console.print(
                f"The service stays up: try its API at {server.address}/docs. Ctrl-C ends it.", highlight=False
            )
            server.wait()
    return kept


def _clear(folder: Path) -> None:
    """Start from nothing, but never delete what an earlier demo did not make."""
    marker = folder / _MARKER
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            raise JigSightError(f"{folder} is not empty, and not from an earlier demo. Give another with --dir.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _starting_weights(console: Console) -> str:
    try:
        load_weights(build_backbone(_ARCH), _ARCH, IMAGENET)
    except (WeightsError, OSError):
        console.print(
            "ImageNet weights cannot be fetched here, so the demo goes on with a backbone that the jigsaw alone "
            "teaches, from random weights, on the sample parts. Train your own parts with real weights (README)."
        )
        return NONE
    return IMAGENET


def _train(folder: Path, category: str, weights: str, console: Console) -> TrainingResult:
    console.rule(f"training {category}")
    progress = Progress(console)
    with progress.step("rendering sample parts", _TRAINED_ON) as step:
        write_category(folder / "parts", category, train=_TRAINED_ON, seed=_SAMPLE_SEED, progress=step.reach)
    request = TrainingRequest(
        data=folder / "parts",
        category=category,
        recipe=_recipe(pretrained=weights == IMAGENET),
        arch=_ARCH,
        weights=weights,
        textures=None,
        kind="auto",
        devices=Devices(),
        artifacts=folder / "artifacts",
    )
    result = train_category(request, progress)
    threshold = f"threshold {result.threshold.value:.3f}"
    console.print(f"{category}: artifact {result.artifact}, {threshold}", highlight=False, markup=False, soft_wrap=True)
    return result


def _recipe(*, pretrained: bool) -> Recipe:
    recipe = read_recipe("demo")
    if not pretrained:
        return recipe
    gentle = recipe.jigsaw.schedule.model_copy(update={"learning_rate": 3e-5, "max_epochs": 2})
    return recipe.model_copy(update={"jigsaw": recipe.jigsaw.model_copy(update={"schedule": gentle})})


def _samples(folder: Path, category: str) -> list[TestSample]:
    """A few good test parts and a few with each kind of defect."""
    seen: Counter[str] = Counter()
    picked = []
    for sample in test_samples(folder / "parts", category):
        seen[sample.defect] += 1
        if seen[sample.defect] <= (_SHOWN_GOOD if sample.defect == "good" else _SHOWN_PER_DEFECT):
            picked.append(sample)
    return picked


def _inspect(server: Server, folder: Path, category: str, sample: TestSample) -> Shown:
    name = f"{category}-{sample.defect}-{sample.path.stem}"
    inspection, picture = server.inspect(category, sample.path, serial=name)
    heatmap = folder / "heatmaps" / f"{name}.png"
    heatmap.parent.mkdir(parents=True, exist_ok=True)
    heatmap.write_bytes(picture)
    return Shown(category, sample, inspection, heatmap)


def _table(shown: list[Shown]) -> Table:
    table = Table(title="Verdicts")
    for column in ("category", "part", "truth"):
        table.add_column(column, no_wrap=True)
    table.add_column("verdict")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("threshold", justify="right", no_wrap=True)
    table.add_column("")
    for one in shown:
        verdict = one.inspection["verdict"]
        table.add_row(
            one.category,
            one.sample.path.name,
            one.sample.defect,
            f"[{'green' if verdict == 'pass' else 'red'}]{verdict}[/]",
            f"{one.inspection['score']:.2f}",
            f"{one.inspection['threshold']:.2f}",
            "" if one.right else "[bold yellow]wrong[/]",
        )
    return table


def _promise_kept(shown: list[Shown], console: Console) -> bool:
    good = [one.right for one in shown if one.sample.defect == "good"]
    defective = [one.right for one in shown if one.sample.defect != "good"]
    console.print(
        f"{sum(good)} of {len(good)} good parts pass, {sum(defective)} of {len(defective)} defective parts fail."
    )
    if all(good) and sum(defective) >= _CAUGHT * len(defective):
        return True
    console.print(
        f"[bold red]Promised: all good ones pass and {_CAUGHT:.0%} of the defective ones fail.[/] Without ImageNet "
        "weights the detector is weak; please report this."
    )
    return False
