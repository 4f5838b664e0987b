import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import training.pipeline
from models.errors import RecipeError
from training.pipeline import train_category
from training.progress import Progress
from training.recipe import read_recipe
from training.request import TrainingRequest

ROOT = Path(__file__).parents[2]
QUIET = Progress.silent()
# What `jigsight train` does, in a process that can be killed; each file it opens and each folder it lists is
# told to the last argument.
SCRIPT = """
import os
import sys
from pathlib import Path

log = os.open(sys.argv[4], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
EVENTS = {"open", "os.listdir", "os.scandir"}
sys.addaudithook(lambda event, args: event in EVENTS and os.write(log, f"{args[0]}\\n".encode()))

from training.loop import Devices
import training.pipeline
from models.errors import RecipeError
from training.pipeline import train_category
from training.progress import Progress
from training.recipe import read_recipe
from training.request import TrainingRequest

train_category(
    TrainingRequest(
        data=Path(sys.argv[1]), category="flange", recipe=read_recipe(sys.argv[2]), arch="resnet18", weights="none",
        textures=None, kind="auto", devices=Devices(), artifacts=Path(sys.argv[3]),
    ),
    Progress.silent(),
)
"""


class Interrupted(io.StringIO):
    """A log whose reader presses Ctrl-C when it comes to `word`."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    def write(self, text: str) -> int:
        if text.startswith(self.word):
            raise KeyboardInterrupt
        return super().write(text)


def test_another_run_does_not_go_on_from_this_one(
    ask: Callable[..., TrainingRequest], samples: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(samples / "flange/train", data / "flange/train")
    request = ask(use="always", data=data)
    with pytest.raises(KeyboardInterrupt):
        train_category(request, Progress(Console(file=Interrupted("fusion"))))
    (left,) = (request.artifacts / ".training").iterdir()
    assert list(left.glob("jigsaw-*.pt"))
    before = {path.name: path.read_bytes() for path in left.iterdir()}

    picture = data / "flange/train/good/003.png"
    pixels = np.asarray(Image.open(picture)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(picture)
    disturbed = train_category(request, QUIET)
    undisturbed = train_category(replace(request, artifacts=tmp_path / "undisturbed"), QUIET)
    assert disturbed.artifact.read_bytes() == undisturbed.artifact.read_bytes()
    assert {path.name: path.read_bytes() for path in left.iterdir()} == before


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as the processes below have: sums in another order have other last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(data: Path, recipe: str, artifacts: Path, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", SCRIPT, *map(str, (data, recipe, artifacts, log))]
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def kill_when_there_is(pattern: str, process: subprocess.Popen[bytes], artifacts: Path) -> None:
    """SIGKILL as soon as a file of the working folder matches; the process must not have ended before."""
    while not list(artifacts.glob(f".training/*/{pattern}")):
        try:
            process.wait(timeout=0.002)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"training ended with {process.returncode} before there was {pattern}")
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("use", ["always", "choose"])
def test_a_killed_run_ends_in_the_bytes_of_an_undisturbed_one(
    use: str, ask: Callable[..., TrainingRequest], samples: Path, write_recipe: Callable[..., str], tmp_path: Path
) -> None:
    recipe = write_recipe(use=use, epochs=2, scorer='name = "dense_gaussian"\nchannels = 200')
    undisturbed = ask(recipe=read_recipe(recipe), artifacts=tmp_path / "undisturbed")
    expected = train_category(undisturbed, QUIET).artifact
    log, artifacts = tmp_path / "opened", tmp_path / "killed"
    written = {}
    for pattern in ("jigsaw-*.pt", "fusion-*.pt"):
        kill_when_there_is(pattern, start(samples, recipe, artifacts, log), artifacts)
        assert not list(artifacts.glob("flange/*.safetensors"))
        (jigsaw,) = artifacts.glob(".training/*/jigsaw-*.pt")
        written[pattern] = jigsaw.stat().st_mtime_ns
    assert written["jigsaw-*.pt"] <= written["fusion-*.pt"]
    assert start(samples, recipe, artifacts, log).wait() == 0

    (found,) = artifacts.rglob("*.safetensors")
    assert found.name == expected.name
    assert found.read_bytes() == expected.read_bytes()
    assert list((artifacts / ".training").iterdir()) == []
    opened = log.read_text().splitlines()
    assert any("flange/train/good/000.png" in name for name in opened)
    assert [name for name in opened if "flange/test" in name or "ground_truth" in name] == []


def test_a_second_equal_run_is_refused_while_the_first_is_under_way(
    ask: Callable[..., TrainingRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(use="never")
    refusals: list[str] = []
    first = training.pipeline.run_stages

    def while_running(*arguments: object, **options: object) -> object:
        monkeypatch.setattr("training.pipeline.run_stages", first)
        with pytest.raises(RecipeError, match="under way") as refusal:
            train_category(request, QUIET)
        refusals.append(str(refusal.value))
        return first(*arguments, **options)

    monkeypatch.setattr("training.pipeline.run_stages", while_running)
    assert train_category(request, QUIET).artifact.is_file()
    assert len(refusals) == 1
