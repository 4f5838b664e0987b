import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from models.artifact import SCORES, load, save
from models.errors import DatasetError, RecipeError
from models.manifest import DatasetRecord, Manifest
from models.memory_bank import MemoryBankConfig
from models.precision import Precision
from training.loop import Devices
from training.picture_files import fingerprint
from training.pipeline import train_category
from training.progress import Progress
from training.recipe import Recipe
from training.refit import refit_category
from training.request import TrainingRequest, TrainingResult

Refit = Callable[..., TrainingResult]
BANK = {"name": "memory_bank", "share": 0.1, "projection": 16}


@pytest.fixture
def refit(samples: Path, tmp_path: Path) -> Refit:
    """Refit the artifact at a path on all flanges, beside the artifacts of `ask`."""

    def run(path: Path, *, data: Path = samples, **options: object) -> TrainingResult:
        asked = {"category": None, "added": (), "false_reject_rate": None}
        asked |= {"devices": Devices(), "progress": Progress.silent()} | options
        return refit_category(
            path,
            data=data,
            artifacts=tmp_path / "artifacts",
            **asked,  # type: ignore[arg-type]
        )

    return run


def some(samples: Path, folder: Path, part: slice) -> Path:
    """Some of the flanges, in a folder of their own."""
    folder.mkdir()
    for path in sorted((samples / "flange/train/good").iterdir())[part]:
        shutil.copy(path, folder / f"{folder.name}-{path.name}")
    return folder


def train(request: TrainingRequest) -> Path:
    return train_category(request, Progress.silent()).artifact


def test_on_the_same_pictures_it_is_the_same_detector(ask: Callable[..., TrainingRequest], refit: Refit) -> None:
    first = train(ask(use="always"))
    result = refit(first)
    before, after = load_file(first), load_file(result.artifact)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(tensor, after[name], rtol=1e-4, atol=1e-4, msg=name)
    assert load(result.artifact).manifest.refitted_from == first.stem
    assert not [warning for warning in result.warnings if "fewer" in warning]
    assert list((first.parents[1] / ".training").iterdir()) == []


def test_the_same_refit_gives_the_same_bytes(ask: Callable[..., TrainingRequest], refit: Refit) -> None:
    first = train(ask())
    assert refit(first).artifact.read_bytes() == refit(first).artifact.read_bytes()


def test_more_pictures_count_and_a_bank_grows_with_them(
    ask: Callable[..., TrainingRequest], refit: Refit, samples: Path, tmp_path: Path
) -> None:
    request = ask(data=some(samples, tmp_path / "old", slice(0, 8)))
    recipe = request.recipe.model_dump(mode="json") | {"scorer": BANK}
    first = train(ask(data=request.data, recipe=Recipe.model_validate(recipe)))
    more = some(samples, tmp_path / "new", slice(8, 12))
    result = refit(first, data=request.data, added=[more], false_reject_rate=0.25)
    banks = [load(path).manifest.detector.scorer for path in (first, result.artifact)]
    assert [bank.vectors for bank in banks if isinstance(bank, MemoryBankConfig)] == [51, 77]
    assert load(result.artifact).manifest.dataset.images == len(load_file(result.artifact)[SCORES]) == 12
    assert result.threshold.false_reject_rate == 0.25


def test_fewer_pictures_than_before_are_told(
    ask: Callable[..., TrainingRequest], refit: Refit, samples: Path, tmp_path: Path
) -> None:
    first = train(ask())
    result = refit(first, data=some(samples, tmp_path / "few", slice(0, 8)))
    assert "8 good images are fewer than the 12" in result.warnings[-1]


def test_too_few_pictures_are_refused_however_many_there_were(
    ask: Callable[..., TrainingRequest], refit: Refit, samples: Path, tmp_path: Path
) -> None:
    first = train(ask())
    few, more = some(samples, tmp_path / "few", slice(0, 5)), some(samples, tmp_path / "more", slice(5, 8))
    with pytest.raises(DatasetError, match="5 different pictures of good parts are too few"):
        refit(first, data=few)
    with pytest.raises(DatasetError, match="5 different pictures of good parts are too few"):
        refit(first, data=few, added=[few])
    assert refit(first, data=few, added=[more]).artifact.is_file()


def test_copies_among_the_pictures_are_left_out_and_told(
    ask: Callable[..., TrainingRequest], refit: Refit, samples: Path, tmp_path: Path
) -> None:
    """Wherever they lie: a picture that is added and was there before counts once."""
    first, ten = train(ask()), some(samples, tmp_path / "ten", slice(0, 10))
    once = load(refit(first, data=ten).artifact)
    for name in ("the-same", "once-more"):
        (tmp_path / name).mkdir()
        shutil.copy(ten / "ten-004.png", tmp_path / name / f"{name}.png")
    shutil.copy(tmp_path / "the-same/the-same.png", ten)
    result = refit(first, data=ten, added=[tmp_path / "once-more", ten])
    assert any("left out, 13 of 23 (the-same.png is ten-004.png, " in warning for warning in result.warnings)
    found = load(result.artifact)
    given = [*sorted(ten.iterdir()), tmp_path / "once-more/once-more.png", *sorted(ten.iterdir())]
    assert found.manifest.dataset == DatasetRecord(images=10, fingerprint=fingerprint(given))
    assert torch.equal(found.calibration.scores, once.calibration.scores)


def test_a_picture_that_was_saved_again_is_scored_without_the_first(
    ask: Callable[..., TrainingRequest], refit: Refit, samples: Path, tmp_path: Path
) -> None:
    first = train(ask())
    (tmp_path / "again").mkdir()
    for path in sorted((samples / "flange/train/good").iterdir())[:4]:
        Image.fromarray(np.asarray(Image.open(path)) ^ 1).save(tmp_path / "again" / f"again-{path.name}")
    result = refit(first, added=[tmp_path / "again"])
    assert any("look nearly as others do, 4 of 16 (again-000.png like 000.png, " in told for told in result.warnings)
    assert any("12 good images are few" in told for told in result.warnings)


def test_another_category_is_refused(ask: Callable[..., TrainingRequest], refit: Refit) -> None:
    first = train(ask())
    with pytest.raises(DatasetError, match="of flange; fitted to bracket, it would judge one by the other"):
        refit(first, category="bracket")


def test_a_rule_without_a_rate_is_given_none(ask: Callable[..., TrainingRequest], refit: Refit) -> None:
    recipe = ask().recipe.model_dump(mode="json") | {"calibration": {"rule": "train_max"}}
    first = train(ask(recipe=Recipe.model_validate(recipe)))
    with pytest.raises(RecipeError, match="train_max, has no false-reject rate"):
        refit(first, false_reject_rate=0.1)


def test_what_is_ignored_stays_ignored(ask: Callable[..., TrainingRequest], refit: Refit, tmp_path: Path) -> None:
    painted = Image.new("RGB", (64, 64))
    painted.paste((255, 0, 0), (0, 0, 32, 64))
    painted.save(tmp_path / "ignore.png")
    first = train(ask(ignore=tmp_path / "ignore.png"))
    result = refit(first)
    for path in (first, result.artifact):
        detection = load(path).detector(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        assert not detection.map[0, :, :8].any()
    assert load(result.artifact).manifest.ignored == load(first).manifest.ignored


def test_pictures_are_decoded_as_they_were(ask: Callable[..., TrainingRequest], refit: Refit, tmp_path: Path) -> None:
    recipe = ask().recipe
    whole = recipe.model_copy(update={"preprocess": recipe.preprocess.model_copy(update={"reduced_jpeg": False})})
    first = load(train(ask(recipe=whole)))
    document = first.manifest.model_dump(mode="json")
    for section in (document["detector"], document["recipe"]):
        del section["preprocess"]["reduced_jpeg"]  # as it was before there was such a thing
    old = Manifest.model_validate(document)
    path = save(first.detector, old, first.calibration.scores, folder=tmp_path / "old")
    manifest = load(refit(path).artifact).manifest
    assert manifest.detector.preprocess.reduced_jpeg is False
    assert manifest.recipe["preprocess"]["reduced_jpeg"] is False
    assert load(refit(train(ask())).artifact).manifest.detector.preprocess.reduced_jpeg is True


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ("float32", "bfloat16", "precision: bfloat16 instead of the artifact's float32; --precision float32 keeps"),
        ("float16", "float32", "precision: float32 instead of the artifact's float16; the cpu cannot"),
        (None, "bfloat16", "precision: bfloat16 instead of the artifact's float32;"),
        ("bfloat16", "bfloat16", None),
        (None, "float32", None),
    ],
)
def test_another_precision_than_the_artifact_s_is_said(
    ask: Callable[..., TrainingRequest], refit: Refit, tmp_path: Path, before: str, now: Precision, said: str | None
) -> None:
    first = load(train(ask()))
    manifest = first.manifest.model_copy(update={"precision": before})
    path = save(first.detector, manifest, first.calibration.scores, folder=tmp_path / "old")
    terminal = Console(file=io.StringIO(), width=200)
    refitted = load(refit(path, devices=Devices(precision=now), progress=Progress(terminal)).artifact)
    assert refitted.manifest.precision == now
    assert isinstance(terminal.file, io.StringIO)
    lines = [line for line in terminal.file.getvalue().splitlines() if line.startswith("precision")]
    assert [line[: len(said)] for line in lines if said] == ([said] if said else [])
    assert len(lines) == (0 if said is None else 1)
