"""What a whole run reads: the good pictures for training, and nothing below test/ or ground_truth/."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from models.artifact import load
from training.pipeline import train_category
from training.progress import Progress
from training.request import TrainingRequest, TrainingResult


def train(request: TrainingRequest) -> TrainingResult:
    return train_category(request, Progress.silent())


# `jigsight` in a process of its own, which tells its first argument of each file it opens and each folder it lists.
WATCHED = """
import os
import sys

log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
EVENTS = {"open", "os.listdir", "os.scandir", "glob.glob"}
sys.addaudithook(lambda event, args: event in EVENTS and os.write(log, f"{args[0]}\\n".encode()))

import jigsight

jigsight.app()
"""


def test_training_never_opens_anything_below_test_or_ground_truth(
    samples: Path, write_recipe: Callable[..., str], tmp_path: Path
) -> None:
    scorer = 'name = "gaussian"\nrank = [4, 2]\nshrinkage = 0.1\ndimensions = 0.2'
    recipe = write_recipe(use="choose", align="choose", scorer=scorer, smoothing=[4.0, 2.0])
    options = {
        "--data": samples,
        "--category": "flange",
        "--recipe": recipe,
        "--arch": "resnet18",
        "--weights": "none",
        "--device": "cpu",
        "--artifacts": tmp_path / "artifacts",
    }
    command = [
        sys.executable,
        "-c",
        WATCHED,
        tmp_path / "log",
        "train",
        *(each for pair in options.items() for each in pair),
    ]
    done = subprocess.run(
        [str(word) for word in command],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "artifacts/flange").glob("*.safetensors")
    stages = {choice.stage: len(choice.figures) for choice in load(written).manifest.choices}
    assert stages.keys() == {"alignment", "jigsaw", "fusion", "settings"}
    assert all(stages.values()), "all of it was measured"
    below = [
        Path(name).relative_to(samples) for name in (tmp_path / "log").read_text().splitlines() if str(samples) in name
    ]
    assert Path("flange/train/good/011.png") in below
    assert {path.parts[:2] for path in below if len(path.parts) > 1} == {("flange", "train")}


def test_what_lies_below_test_makes_no_difference(
    ask: Callable[..., TrainingRequest], samples: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(samples / "flange/train", copy / "flange/train")
    with_, without = (
        train(ask(use="choose")),
        train(ask(use="choose", data=copy, artifacts=tmp_path / "other")),
    )
    assert with_.artifact.read_bytes() == without.artifact.read_bytes()
