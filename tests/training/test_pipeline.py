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
from safetensors.torch import load_file

from models.artifact import SCORES, load
from models.errors import DatasetError, WeightsError
from training.datasets import read_image
from training.loop import Devices
from training.pipeline import TrainingRequest, TrainingResult, train_category
from training.progress import Progress
from training.recipe import read_recipe
from training.samples import write_category

ROOT = Path(__file__).parents[2]
RECIPE = """
[preprocess]
image_size = 64
[jigsaw]
use = "{use}"
tiles = 2
permutations = 4
schedule = {{ learning_rate = 1e-3, batch_size = 8, max_epochs = {epochs}, patience = {epochs} }}
[fusion]
use = "{use}"
schedule = {{ learning_rate = 1e-3, batch_size = 8, max_epochs = {epochs}, patience = {epochs} }}
[gaussian]
channels = {channels}
"""
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
from training.pipeline import TrainingRequest, train_category
from training.progress import Progress
from training.recipe import read_recipe

train_category(
    TrainingRequest(
        data=Path(sys.argv[1]), category="flange", recipe=read_recipe(sys.argv[2]), arch="resnet18", weights="none",
        textures=None, kind="auto", devices=Devices(), artifacts=Path(sys.argv[3]),
    ),
    Progress.silent(),
)
"""


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen flanges and a few cloths of 64 pixels; what is not for training cannot be read."""
    folder = tmp_path_factory.mktemp("samples")
    for category, count in (("flange", 12), ("cloth", 4)):
        written = write_category(folder, category, train=count, test_good=1, test_defective=1, size=64)
        for path in (*written.glob("test/*/*"), *written.glob("ground_truth/*/*")):
            path.write_bytes(b"not for training")
    return folder


@pytest.fixture(scope="session")
def write_recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A small recipe's file; `use` is said of the jigsaw and of the fusion."""

    def write(*, use: str, epochs: int = 1, channels: int = 24) -> str:
        path = tmp_path_factory.mktemp("recipes") / "small.toml"
        path.write_text(RECIPE.format(use=use, epochs=epochs, channels=channels))
        return str(path)

    return write


@pytest.fixture
def ask(samples: Path, write_recipe: Callable[..., str], tmp_path: Path) -> Callable[..., TrainingRequest]:
    """A request for flanges, with random weights and neither jigsaw nor fusion, unless said otherwise."""

    def make(*, use: str = "never", **fields: object) -> TrainingRequest:
        request = TrainingRequest(
            data=samples,
            category="flange",
            recipe=read_recipe(write_recipe(use=use)),
            arch="resnet18",
            weights="none",
            textures=None,
            kind="auto",
            devices=Devices(),
            artifacts=tmp_path / "artifacts",
        )
        return replace(request, **fields)  # type: ignore[arg-type]

    return make


def train(request: TrainingRequest) -> TrainingResult:
    return train_category(request, Progress.silent())


def copied(samples: Path, folder: Path, *, keep: int = 12) -> Path:
    """The flanges once more, the first `keep` of them, to be changed."""
    shutil.copytree(samples / "flange" / "train", folder / "flange" / "train")
    for path in sorted((folder / "flange/train/good").iterdir())[keep:]:
        path.unlink()
    return folder


def test_the_artifact_says_how_it_was_made_and_judges(ask: Callable[..., TrainingRequest], samples: Path) -> None:
    request = ask(use="choose")
    result = train(request)
    assert result.artifact.parent == request.artifacts / "flange"
    assert result.artifact.stem == result.version
    artifact = load(result.artifact)
    manifest = artifact.manifest
    assert (manifest.category, manifest.kind, result.kind) == ("flange", "object", "object")
    assert "stands clear of the border" in manifest.kind_reason
    assert manifest.dataset.images == 12
    assert (manifest.weights.source, manifest.textures) == ("none", "procedural")
    assert manifest.recipe == request.recipe.model_dump(mode="json")
    assert manifest.threshold == result.threshold
    assert result.warnings
    assert "12 good images" in result.warnings[0]

    assert [choice.stage for choice in manifest.choices] == ["jigsaw", "fusion"]
    names = {f"{what}_auroc_{how}" for what in ("image", "pixel") for how in ("with", "without")}
    for choice in manifest.choices:
        assert choice.figures.keys() == names
        gain = sum(choice.figures[f"{w}_auroc_with"] - choice.figures[f"{w}_auroc_without"] for w in ("image", "pixel"))
        assert choice.kept == (gain / 2 >= request.recipe.validation.margin)
    jigsaw, fusion = manifest.choices
    before = "with" if jigsaw.kept else "without"
    assert fusion.figures["image_auroc_without"] == jigsaw.figures[f"image_auroc_{before}"]
    after = "with" if fusion.kept else "without"
    assert manifest.validation == {
        "synthetic_image_auroc": fusion.figures[f"image_auroc_{after}"],
        "synthetic_pixel_auroc": fusion.figures[f"pixel_auroc_{after}"],
    }
    assert (manifest.detector.fusion == "mfcsam") is fusion.kept

    picture = read_image(samples / "flange/train/good/000.png")
    size = picture.shape[:2]
    ruined = picture.copy()
    ruined[20:44, 20:44] = (255, 0, 255)
    tiles = torch.stack([artifact.detector.preprocess.resize(image) for image in (picture, ruined)])
    detection = artifact.detector(tiles)
    verdicts = [
        artifact.judge(float(score), score_map.numpy(), size=(size[0], size[1])).verdict
        for score, score_map in zip(*detection, strict=True)
    ]
    assert verdicts == ["pass", "fail"]
    assert sorted(request.artifacts.rglob("*.safetensors")) == [result.artifact]
    assert list((request.artifacts / ".training").iterdir()) == []


def test_the_same_run_gives_the_same_bytes(ask: Callable[..., TrainingRequest], tmp_path: Path) -> None:
    one, two = (train(ask(use="always", artifacts=tmp_path / name)) for name in ("one", "two"))
    assert one.version == two.version
    assert one.artifact.read_bytes() == two.artifact.read_bytes()
    manifest = load(one.artifact).manifest
    assert [(choice.kept, choice.reason) for choice in manifest.choices] == [(True, "the recipe says always")] * 2
    assert manifest.detector.fusion == "mfcsam"
    assert manifest.validation == {}


def test_the_jigsaw_and_the_fusion_are_in_the_artifact(ask: Callable[..., TrainingRequest], tmp_path: Path) -> None:
    plain, staged = (load_file(train(ask(use=use, artifacts=tmp_path / use)).artifact) for use in ("never", "always"))
    assert not torch.equal(plain["backbone.conv1.weight"], staged["backbone.conv1.weight"])
    assert not any(name.startswith("fusion.") for name in plain)
    assert any(name.startswith("fusion.") for name in staged)
    assert not any("head" in name for name in staged)


def test_a_texture_has_no_jigsaw(ask: Callable[..., TrainingRequest]) -> None:
    manifest = load(train(ask(use="always", category="cloth")).artifact).manifest
    assert manifest.kind == "texture"
    jigsaw, fusion = manifest.choices
    assert (jigsaw.kept, fusion.kept) == (False, True)
    assert "texture" in jigsaw.reason


@pytest.mark.parametrize("kind", ["object", "texture"])
def test_the_kind_can_be_forced(ask: Callable[..., TrainingRequest], kind: str) -> None:
    manifest = load(train(ask(kind=kind, category="cloth")).artifact).manifest
    assert (manifest.kind, manifest.kind_reason) == (kind, "as asked")


def test_too_few_pictures_to_choose_are_said(
    ask: Callable[..., TrainingRequest], samples: Path, tmp_path: Path
) -> None:
    few = copied(samples, tmp_path / "few", keep=9)
    manifest = load(train(ask(use="choose", data=few)).artifact).manifest
    for choice in manifest.choices:
        assert not choice.kept
        assert choice.figures == {}
        assert "9 good images are too few" in choice.reason
    assert manifest.validation == {}


def test_two_pictures_are_enough_for_an_artifact(
    ask: Callable[..., TrainingRequest], samples: Path, tmp_path: Path
) -> None:
    two = copied(samples, tmp_path / "two", keep=2)
    result = train(ask(use="always", data=two))
    assert load(result.artifact).manifest.dataset.images == 2
    assert torch.isfinite(load_file(result.artifact)[SCORES]).all()


def test_the_recipes_rule_and_rate_set_the_threshold(ask: Callable[..., TrainingRequest], tmp_path: Path) -> None:
    request = ask()
    results = {}
    for rule, rate in (("conformal", 0.5), ("conformal", 0.1), ("train_max", 0.1)):
        calibration = request.recipe.calibration.model_copy(update={"rule": rule, "false_reject_rate": rate})
        recipe = request.recipe.model_copy(update={"calibration": calibration})
        results[rule, rate] = load(train(replace(request, recipe=recipe)).artifact)
    scores = load_file(results["conformal", 0.5].path)[SCORES].sort().values
    assert results["conformal", 0.5].manifest.threshold.value == scores[6]  # the 7th of 12 at a half
    assert results["conformal", 0.1].manifest.threshold.value == scores[11]
    seed_rule = results["train_max", 0.1].manifest.threshold
    assert seed_rule.value < scores[0]
    assert seed_rule.false_reject_rate is None


@pytest.mark.parametrize("folds", [3, "leave_one_out"])
def test_every_image_is_scored_out_of_sample(ask: Callable[..., TrainingRequest], folds: int | str) -> None:
    request = ask()
    calibration = request.recipe.calibration.model_copy(update={"folds": folds})
    result = train(replace(request, recipe=request.recipe.model_copy(update={"calibration": calibration})))
    assert load_file(result.artifact)[SCORES].shape == (12,)


def test_a_weights_file_is_where_training_starts(ask: Callable[..., TrainingRequest], tmp_path: Path) -> None:
    first = train(ask(artifacts=tmp_path / "first"))
    again = train(ask(weights=str(first.artifact), artifacts=tmp_path / "again"))
    start, end = (load_file(result.artifact) for result in (first, again))
    assert all(torch.equal(start[name], end[name]) for name in start if name.startswith("backbone."))
    assert load(again.artifact).manifest.weights.source == first.artifact.name


@pytest.mark.parametrize(
    ("field", "error", "words"),
    [
        ({"weights": "nowhere.pth"}, WeightsError, "no weights file nowhere.pth"),
        ({"textures": Path("nowhere")}, DatasetError, "texture folder nowhere does not exist"),
    ],
)
def test_what_is_missing_is_said_before_pictures_are_read(
    ask: Callable[..., TrainingRequest],
    samples: Path,
    tmp_path: Path,
    field: dict[str, object],
    error: type[Exception],
    words: str,
) -> None:
    broken = copied(samples, tmp_path / "broken")
    for path in (broken / "flange/train/good").iterdir():
        path.write_bytes(b"not a picture")
    with pytest.raises(error, match=words):
        train(ask(data=broken, **field))
    with pytest.raises(DatasetError, match=r"000\.png"):
        train(ask(data=broken))


def test_a_name_that_no_category_can_have_is_refused(ask: Callable[..., TrainingRequest], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'a b' cannot be a category's name"):
        train(ask(category="a b"))
    assert not (tmp_path / "artifacts").exists()


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
    data = copied(samples, tmp_path / "data")
    request = ask(use="always", data=data)
    with pytest.raises(KeyboardInterrupt):
        train_category(request, Progress(Console(file=Interrupted("fusion"))))
    (left,) = (request.artifacts / ".training").iterdir()
    assert (left / "jigsaw.pt").exists()
    before = {path.name: path.read_bytes() for path in left.iterdir()}

    picture = data / "flange/train/good/003.png"
    pixels = np.asarray(Image.open(picture)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(picture)
    disturbed = train(request)
    undisturbed = train(replace(request, artifacts=tmp_path / "undisturbed"))
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
def test_a_killed_run_ends_in_the_bytes_of_an_undisturbed_one(
    ask: Callable[..., TrainingRequest], samples: Path, write_recipe: Callable[..., str], tmp_path: Path
) -> None:
    recipe = write_recipe(use="always", epochs=2, channels=160)
    expected = train(ask(recipe=read_recipe(recipe), artifacts=tmp_path / "undisturbed")).artifact
    log, artifacts = tmp_path / "opened", tmp_path / "killed"
    written = {}
    for pattern in ("jigsaw.pt", "fusion.pt", "features.npy"):
        kill_when_there_is(pattern, start(samples, recipe, artifacts, log), artifacts)
        assert not list(artifacts.glob("flange/*.safetensors"))
        (jigsaw,) = artifacts.glob(".training/*/jigsaw.pt")
        written[pattern] = jigsaw.stat().st_mtime_ns
    assert written["jigsaw.pt"] < written["fusion.pt"] == written["features.npy"]  # finished: not trained again
    assert start(samples, recipe, artifacts, log).wait() == 0

    (found,) = artifacts.rglob("*.safetensors")
    assert found.name == expected.name
    assert found.read_bytes() == expected.read_bytes()
    assert list((artifacts / ".training").iterdir()) == []
    opened = log.read_text().splitlines()
    assert any("flange/train/good/000.png" in name for name in opened)
    assert [name for name in opened if "flange/test" in name or "ground_truth" in name] == []


@pytest.mark.slow
def test_the_default_architecture_goes_the_same_way(
    ask: Callable[..., TrainingRequest], samples: Path, tmp_path: Path
) -> None:
    few = copied(samples, tmp_path / "few", keep=3)
    artifact = load(train(ask(use="always", data=few, arch="wide_resnet50_2")).artifact)
    assert artifact.manifest.detector.arch == "wide_resnet50_2"
    tile = artifact.detector.preprocess.resize(read_image(few / "flange/train/good/000.png"))
    assert torch.isfinite(artifact.detector(tile.unsqueeze(0)).score).all()
