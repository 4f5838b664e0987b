"""The training commands as a user types them."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import jigsight
from models.artifact import load
from models.errors import DatasetError, DeviceError, JigSightError, RecipeError

TINY = """
[preprocess]
image_size = 64
[jigsaw]
use = "always"
tiles = 2
permutations = 4
schedule = { max_epochs = 1, batch_size = 8 }
[fusion]
use = "always"
schedule = { max_epochs = 1, batch_size = 8 }
[alignment]
use = "never"
[scorer]
name = "dense_gaussian"
channels = 16
[map]
smoothing = 4.0
[calibration]
folds = 4
false_reject_rate = 0.1
"""


def run(*arguments: object) -> str:
    result = CliRunner().invoke(jigsight.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    printed = run(
        "sample", folder, "--category", "flange", "--train", 12, "--test-good", 2, "--test-defective", 1, "--size", 96
    )
    assert Path(printed.strip()) == folder / "flange"
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    file.write_text(TINY)
    return file


def train(parts: Path, recipe: Path, folder: Path, *more: object) -> dict:
    run(
        "train",
        "--data",
        parts,
        "--category",
        "flange",
        "--recipe",
        recipe,
        "--weights",
        "none",
        "--device",
        "cpu",
        "--artifacts",
        folder / "artifacts",
        "--json",
        folder / "train.json",
        *more,
    )
    return dict(json.loads((folder / "train.json").read_text()))


def test_sample_writes_the_layout_of_mvtec_ad(parts: Path) -> None:
    assert len(list((parts / "flange/train/good").glob("*.png"))) == 12
    assert len(list((parts / "flange/test/good").glob("*.png"))) == 2
    for mask in (parts / "flange/ground_truth").rglob("*_mask.png"):
        defect, name = mask.parent.name, mask.name.replace("_mask", "")
        assert (parts / "flange/test" / defect / name).is_file()


def test_synth_draws_a_sheet(parts: Path, tmp_path: Path) -> None:
    printed = run("synth", "--data", parts, "--category", "flange", "-o", tmp_path / "new/sheet.png", "--count", 3)
    sheet = cv2.imread(printed.strip())
    assert sheet is not None
    assert sheet.shape[1] > 3 * 224


@pytest.mark.parametrize("arch", ["resnet18", pytest.param("wide_resnet50_2", marks=pytest.mark.slow)])
def test_train_then_evaluate_then_inspect(arch: str, parts: Path, recipe: Path, tmp_path: Path) -> None:
    trained = train(parts, recipe, tmp_path, "--arch", arch)
    artifact = Path(trained["artifact"])
    assert artifact.name == f"{trained['version']}.safetensors"
    assert trained["category"] == "flange"
    stages = [(choice["stage"], choice["kept"]) for choice in trained["choices"]]
    assert stages == [("alignment", False), ("jigsaw", True), ("fusion", True)]
    assert (trained["threshold_rule"], trained["alpha"]) == ("conformal", 0.1)
    seconds = trained["seconds"]
    assert {"jigsaw", "fusion", "features", "gaussian", "other", "total"} <= seconds.keys()
    assert sum(seconds.values()) == pytest.approx(2 * seconds["total"], abs=0.01)
    record = json.loads(artifact.with_suffix(".json").read_text())
    assert (record["version"], record["seconds"]) == (trained["version"], seconds)
    assert record["manifest"]["choices"] == trained["choices"]

    run("evaluate", artifact, "--data", parts, "--json", tmp_path / "e.json", "--report", tmp_path / "report")
    evaluation = json.loads((tmp_path / "e.json").read_text())
    assert (tmp_path / "report/index.html").is_file()
    for name in ("threshold", "threshold_rule", "alpha"):
        assert evaluation[name] == trained[name]
    assert 0 <= evaluation["image_auroc"] <= 1

    image = parts / "flange/test/good/000.png"
    result = CliRunner().invoke(jigsight.app, ["inspect", str(artifact), str(image), "--json"])
    inspected = json.loads(result.stdout)["images"][0]
    evaluated = next(each for each in evaluation["images"] if Path(each["path"]) == image)
    assert inspected["score"] == pytest.approx(evaluated["score"], rel=1e-4)
    assert inspected["verdict"] == evaluated["verdict"]


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe without jigsaw and fusion."""
    file = tmp_path_factory.mktemp("recipes") / "brief.toml"
    file.write_text(TINY.replace('use = "always"', 'use = "never"'))
    return file


def test_options_come_before_the_recipe(parts: Path, brief: Path, tmp_path: Path) -> None:
    painted = np.zeros((96, 96, 3), np.uint8)
    painted[:, :48] = 255
    cv2.imwrite(str(tmp_path / "ignore.png"), painted)
    options = ["--arch", "mobilenet_v2", "--ignore", tmp_path / "ignore.png", "--false-reject-rate", 0.3]
    options += ["--scorer", "memory_bank", "--image-size", 32, "--tiles", 2, "--align", "always"]
    trained = train(parts, brief, tmp_path, *options)
    assert trained["alpha"] == 0.3
    alignment = trained["choices"][0]
    assert (alignment["stage"], alignment["kept"]) == ("alignment", True)
    manifest = load(Path(trained["artifact"])).manifest
    detector = manifest.detector
    assert (detector.arch, detector.scorer.name) == ("mobilenet_v2", "memory_bank")
    assert (detector.preprocess.image_size, detector.preprocess.tiles) == (32, 2)
    assert detector.preprocess.align is not None
    assert manifest.ignored is not None
    assert manifest.recipe["scorer"]["name"] == "memory_bank"


@pytest.mark.parametrize("scorer", ["gaussian", "coupled"])
def test_another_scorer_is_an_option(parts: Path, brief: Path, tmp_path: Path, scorer: str) -> None:
    trained = train(parts, brief, tmp_path, "--arch", "mobilenet_v2", "--scorer", scorer)
    assert load(Path(trained["artifact"])).manifest.detector.scorer.name == scorer
    assert trained["choices"][-1]["stage"] == ("settings" if scorer == "gaussian" else "fusion")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--image-size", "100"], "multiple of 32"),
        (["--image-size", "2048", "--tiles", "8"], "at most 4096"),
    ],
)
def test_options_are_checked_with_the_recipe(
    parts: Path, options: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=says):
        CliRunner().invoke(jigsight.app, ["train", "--data", str(parts), *options], catch_exceptions=False)


@pytest.mark.parametrize(
    "option", [["--scorer", "forest"], ["--tiles", "9"], ["--align", "perhaps"], ["--image-size", "31"]]
)
def test_a_value_that_an_option_does_not_know_is_a_usage_error(parts: Path, option: list[str]) -> None:
    result = CliRunner().invoke(jigsight.app, ["train", "--data", str(parts), *option])
    assert result.exit_code == 2
    assert option[0] in result.stderr


def test_the_last_line_says_where_the_time_went(parts: Path, brief: Path, tmp_path: Path) -> None:
    given = [
        "train",
        "--data",
        parts,
        "--category",
        "flange",
        "--recipe",
        brief,
        "--weights",
        "none",
        "--device",
        "cpu",
    ]
    given += ["--arch", "mobilenet_v2", "--artifacts", tmp_path / "artifacts", "--json", tmp_path / "train.json"]
    result = CliRunner().invoke(jigsight.app, [str(each) for each in given], catch_exceptions=False)
    line = " ".join(result.stderr[result.stderr.rindex("time: ") :].split())
    seconds = json.loads((tmp_path / "train.json").read_text())["seconds"]
    assert line.startswith(f"time: {seconds.pop('total'):.1f} s; ")
    told = [stage.rsplit(" ", 1) for stage in line.partition("; ")[2].split(", ")]
    assert {name: float(spent) for name, spent in told} == {name: round(spent, 1) for name, spent in seconds.items()}
    assert [float(spent) for _, spent in told] == sorted(map(float, dict(told).values()), reverse=True)


def test_refit_takes_more_pictures_and_keeps_what_was_learnt(parts: Path, brief: Path, tmp_path: Path) -> None:
    first = Path(train(parts, brief, tmp_path, "--arch", "mobilenet_v2")["artifact"])
    before = load(first).manifest
    more = parts / "flange/test/good"
    printed = run(
        "refit", first.parent, "--data", parts, "--category", "flange", "--add", more, "--device", "cpu",
        "--false-reject-rate", 0.2, "--artifacts", tmp_path / "artifacts", "--json", tmp_path / "refit.json",
    )  # fmt: skip
    refitted = load(Path(printed.strip()))
    assert refitted.path != first
    assert refitted.path.parent == first.parent
    manifest = refitted.manifest
    assert (manifest.dataset.images, manifest.refitted_from) == (14, first.stem)
    assert (manifest.detector, manifest.choices) == (before.detector, before.choices)
    assert manifest.threshold.false_reject_rate == 0.2
    assert json.loads((tmp_path / "refit.json").read_text())["version"] == refitted.version
    old, new = (load_file(path) for path in (first, refitted.path))
    assert all(torch.equal(old[name], new[name]) for name in old if name.startswith("backbone."))
    assert not torch.equal(old["scorer.mean"], new["scorer.mean"])


def test_evaluate_at_another_false_reject_rate_moves_the_threshold(parts: Path, recipe: Path, tmp_path: Path) -> None:
    # The category's folder stands for its only artifact.
    artifact = Path(train(parts, recipe, tmp_path, "--arch", "resnet18")["artifact"]).parent
    strict, lax = (
        json.loads(run("evaluate", artifact, "--data", parts, "--false-reject-rate", rate, "--json", "-"))
        for rate in (0.1, 0.5)
    )
    assert lax["threshold"] < strict["threshold"]
    arguments = ["evaluate", str(artifact), "--data", str(parts), "--false-reject-rate"]
    said = {rate: CliRunner().invoke(jigsight.app, [*arguments, rate]).stderr for rate in ("0.0001", "0.1")}
    assert f"Evaluating {next(artifact.glob('*.safetensors'))}." in said["0.1"]
    assert "warning" not in said["0.1"]
    warning = " ".join(said["0.0001"].split())
    assert "12 good pictures cannot vouch for a false-reject rate of 0.0001, only for 0.077 or more" in warning


def test_evaluate_on_a_plain_folder_of_good_parts(parts: Path, recipe: Path, tmp_path: Path) -> None:
    artifact = train(parts, recipe, tmp_path, "--arch", "resnet18")["artifact"]
    said = {}
    for name, files in (("test/good", 2), ("train/good", 12)):
        folder = tmp_path / name.replace("/", " ")
        shutil.copytree(parts / "flange" / name, folder)
        result = CliRunner().invoke(jigsight.app, ["evaluate", str(artifact), "--data", str(folder), "--json", "-"])
        document = json.loads(result.stdout)
        assert (document["image_auroc"], document["pixel_auroc"], document["miss_rate"]) == (None, None, None)
        assert len(document["images"]) == files
        low, high = document["false_reject_interval"]
        assert low <= document["false_reject_rate"] <= high
        said[name] = " ".join(result.stderr.split())
        assert f"All {files} pictures are taken for good parts." in said[name]
    assert "warning: these are the good pictures that it was trained on" in said["train/good"]
    assert "warning" not in said["test/good"]


def test_an_artifact_that_does_not_fit_on_the_disk_says_where(parts: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "no-stages.toml"
    recipe.write_text(TINY.replace('"always"', '"never"'))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 2**20, before[1]))
    try:
        with pytest.raises(JigSightError, match=r"artifact cannot be written to .*artifacts: .*File too large"):
            train(parts, recipe, tmp_path, "--arch", "resnet18")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "artifacts" / "flange").iterdir())


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["train", "--data", "nowhere", "--weights", "none"], DatasetError, "nowhere"),
        (["train", "--data", "nowhere", "--arch", "vgg"], JigSightError, "wide_resnet50_2"),
        (["train", "--data", "nowhere", "--recipe", "nothing"], JigSightError, "default"),
        (["sample", "out", "--category", "gear"], DatasetError, "flange"),
    ],
)
def test_a_wrong_argument_is_an_error_that_says_what_to_do(
    arguments: list[str], error: type[Exception], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=says):
        CliRunner().invoke(jigsight.app, arguments, catch_exceptions=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_refused(parts: Path) -> None:
    with pytest.raises(DeviceError, match="cpu"):
        CliRunner().invoke(jigsight.app, ["train", "--data", str(parts), "--device", "cuda"], catch_exceptions=False)


def test_train_evaluate_and_refit_compute_in_the_precision_that_is_asked_for(
    parts: Path, brief: Path, tmp_path: Path
) -> None:
    artifacts = {
        precision: Path(
            train(parts, brief, tmp_path / precision, "--arch", "resnet18", "--precision", precision)["artifact"]
        )
        for precision in ("float32", "bfloat16")
    }
    for precision, artifact in artifacts.items():
        assert load(artifact).manifest.precision == precision
    one = artifacts["bfloat16"]
    scores = {
        precision: [
            image["score"]
            for image in json.loads(
                run("evaluate", one, "--data", parts, "--device", "cpu", "--precision", precision, "--json", "-")
            )["images"]
        ]
        for precision in ("float32", "bfloat16")
    }
    assert scores["float32"] != scores["bfloat16"]
    assert scores["float32"] == pytest.approx(scores["bfloat16"], rel=0.05)
    printed = run(
        "refit", one, "--data", parts, "--category", "flange", "--device", "cpu", "--precision", "float32",
        "--artifacts", tmp_path / "refitted",
    )  # fmt: skip
    assert load(Path(printed.strip())).manifest.precision == "float32"


@pytest.mark.parametrize("command", ["train", "refit"])
def test_float16_on_a_cpu_is_refused_before_anything_is_read(command: str, tmp_path: Path) -> None:
    arguments = {"train": ["train"], "refit": ["refit", str(tmp_path / "a.safetensors")]}[command]
    (tmp_path / "a.safetensors").write_bytes(b"")
    arguments += ["--data", str(tmp_path / "nowhere"), "--device", "cpu", "--precision", "float16"]
    with pytest.raises(DeviceError, match="float16 is for CUDA"):
        CliRunner().invoke(jigsight.app, arguments, catch_exceptions=False)


def test_errors_are_one_sentence_on_stderr_and_exit_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jigsight", "evaluate", "missing.safetensors", "--data", "nowhere"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 2
    assert "missing.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
