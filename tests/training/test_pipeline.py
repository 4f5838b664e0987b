import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from models.artifact import SCORES, load
from models.errors import DatasetError, JigSightError, WeightsError
from models.preprocess import Preprocess
from training.picture_files import read_image
from training.pictures import Pictures
from training.pipeline import train_category
from training.progress import Progress
from training.recipe import read_recipe
from training.request import TrainingRequest, TrainingResult
from training.samples import write_category


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
    rate, few = result.warnings
    assert rate.startswith("12 good images cannot vouch for a false-reject rate of 0.02")
    assert few.startswith("12 good images are few: ")
    assert "defects may pass" in few

    assert [choice.stage for choice in manifest.choices] == ["alignment", "jigsaw", "fusion", "settings"]
    names = {f"{what}_auroc_{how}" for what in ("image", "pixel") for how in ("with", "without")}
    alignment, jigsaw, fusion, settings = manifest.choices
    assert (alignment.kept, alignment.reason) == (False, "the recipe says never")
    for choice in (jigsaw, fusion):
        assert choice.figures.keys() == names
        gain = sum(choice.figures[f"{w}_auroc_with"] - choice.figures[f"{w}_auroc_without"] for w in ("image", "pixel"))
        assert choice.kept == (gain / 2 >= request.recipe.validation.margin)
    before = "with" if jigsaw.kept else "without"
    assert fusion.figures["image_auroc_without"] == jigsaw.figures[f"image_auroc_{before}"]
    after = "with" if fusion.kept else "without"
    assert manifest.validation == {
        "synthetic_image_auroc": fusion.figures[f"image_auroc_{after}"],
        "synthetic_pixel_auroc": fusion.figures[f"pixel_auroc_{after}"],
    }
    assert (manifest.detector.fusion == "none") is not fusion.kept
    assert settings.figures == {"smoothing 4": sum(manifest.validation.values()) / 2}

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
    assert [(choice.kept, choice.reason) for choice in manifest.choices[1:]] == [(True, "the recipe says always")] * 2
    assert manifest.detector.fusion == ask().recipe.fusion.form
    assert manifest.validation == {}


def test_the_jigsaw_and_the_fusion_are_in_the_artifact(ask: Callable[..., TrainingRequest], tmp_path: Path) -> None:
    plain, staged = (load_file(train(ask(use=use, artifacts=tmp_path / use)).artifact) for use in ("never", "always"))
    assert not torch.equal(plain["backbone.layer3.0.conv1.weight"], staged["backbone.layer3.0.conv1.weight"])
    assert not any(name.startswith("fusion.") for name in plain)
    assert any(name.startswith("fusion.") for name in staged)
    assert not any("head" in name for name in staged)


def test_a_stage_that_is_left_out_leaves_no_trace(ask: Callable[..., TrainingRequest], tmp_path: Path) -> None:
    plain, choosing = ask(artifacts=tmp_path / "plain"), ask(use="choose")
    impossible = choosing.recipe.validation.model_copy(update={"margin": 0.99})
    chosen = replace(choosing, recipe=choosing.recipe.model_copy(update={"validation": impossible}))
    left, right = (load_file(train(request).artifact) for request in (plain, chosen))
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def test_a_texture_has_no_jigsaw(ask: Callable[..., TrainingRequest]) -> None:
    manifest = load(train(ask(use="always", category="cloth")).artifact).manifest
    assert manifest.kind == "texture"
    _, jigsaw, fusion = manifest.choices
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
    for choice in manifest.choices[1:]:
        assert not choice.kept
        assert choice.figures == {}
        assert "9 good images are too few" in choice.reason
    assert manifest.validation == {}


def test_of_too_few_pictures_there_is_no_artifact(
    ask: Callable[..., TrainingRequest], samples: Path, tmp_path: Path
) -> None:
    few = copied(samples, tmp_path / "few", keep=8)
    result = train(ask(use="always", data=few))
    assert load(result.artifact).manifest.dataset.images == 8
    assert torch.isfinite(load_file(result.artifact)[SCORES]).all()
    (few / "flange/train/good/007.png").unlink()
    with pytest.raises(DatasetError, match="7 different pictures of good parts are too few"):
        train(ask(data=few, artifacts=tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_copies_of_pictures_are_left_out_and_told(
    ask: Callable[..., TrainingRequest], samples: Path, tmp_path: Path
) -> None:
    """Else they would be judged by fits to themselves, and the threshold would reject nearly every other good part."""
    twice = copied(samples, tmp_path / "twice", keep=10)
    once = train(ask(data=twice, artifacts=tmp_path / "once"))
    for path in sorted((twice / "flange/train/good").iterdir()):
        shutil.copy(path, path.with_name(f"again-{path.name}"))
    result = train(ask(data=twice, artifacts=tmp_path / "twice-artifacts"))
    one, two = load(once.artifact), load(result.artifact)
    assert two.manifest.threshold == one.manifest.threshold
    assert two.manifest.dataset.images == 10
    assert torch.equal(two.calibration.scores, one.calibration.scores)
    (told,) = set(result.warnings) - set(once.warnings)
    assert "copies of others were left out, 10 of 20 (again-000.png is 000.png, " in told


def test_a_picture_far_beyond_the_others_is_named(ask: Callable[..., TrainingRequest], tmp_path: Path) -> None:
    """One that is not good is a threshold under which defects pass."""
    good = write_category(tmp_path, "flange", train=20, test_good=1, test_defective=1, size=64)
    assert not any("far beyond" in warning for warning in train(ask(data=tmp_path)).warnings)
    path = good / "train/good/005.png"
    picture = np.array(Image.open(path))
    picture[20:36, 20:36] = (255, 0, 255)
    Image.fromarray(picture).save(path)
    result = train(ask(data=tmp_path, artifacts=tmp_path / "mixed"))
    assert any("far beyond the others, 1 of 20 (005.png" in warning for warning in result.warnings)
    Image.fromarray(picture ^ 1).save(path.with_name("005b.png"))  # taken twice: neither may excuse the other
    result = train(ask(data=tmp_path, artifacts=tmp_path / "twice"))
    assert any("far beyond the others, 2 of 21 (005" in warning for warning in result.warnings)


def test_pictures_that_look_the_same_once_they_are_small_are_too_few(
    ask: Callable[..., TrainingRequest],
    write_recipe: Callable[..., str],
    samples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are read for an alignment, larger than a network sees them, and again where it is left out."""
    few = copied(samples, tmp_path / "few", keep=8)
    read = Pictures.read

    def smaller(pictures: Pictures, preprocess: Preprocess) -> torch.Tensor:
        if preprocess.config.align is None:
            shutil.copy(few / "flange/train/good/000.png", few / "flange/train/good/001.png")
        return read(pictures, preprocess)

    monkeypatch.setattr(Pictures, "read", smaller)
    with pytest.raises(DatasetError, match="7 different pictures of good parts are too few"):
        train(ask(data=few, recipe=read_recipe(write_recipe(use="never", align="choose"))))


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


def test_a_weights_file_is_where_training_starts(ask: Callable[..., TrainingRequest]) -> None:
    first = train(ask(category="cloth"))
    again = train(ask(weights=str(first.artifact)))
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


def test_a_file_where_the_artifacts_will_lie_is_said_before_pictures_are_read(
    ask: Callable[..., TrainingRequest], tmp_path: Path
) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/flange").touch()
    progress = Progress.silent()
    with pytest.raises(JigSightError, match=r"artifacts/flange is a file\. Give --artifacts another place"):
        train_category(ask(), progress)
    assert not progress.seconds


@pytest.mark.slow
def test_the_default_architecture_goes_the_same_way(
    ask: Callable[..., TrainingRequest], samples: Path, tmp_path: Path
) -> None:
    few = copied(samples, tmp_path / "few", keep=8)
    artifact = load(train(ask(use="always", data=few, arch="wide_resnet50_2")).artifact)
    assert artifact.manifest.detector.arch == "wide_resnet50_2"
    tile = artifact.detector.preprocess.resize(read_image(few / "flange/train/good/000.png"))
    assert torch.isfinite(artifact.detector(tile.unsqueeze(0)).score).all()


def test_every_picture_that_cannot_be_used_is_named_at_once(
    ask: Callable[..., TrainingRequest], samples: Path, tmp_path: Path
) -> None:
    data = copied(samples, tmp_path / "data")
    good = data / "flange/train/good"
    (good / "text.png").write_text("not a picture")
    (good / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(good / "dot.png")
    with pytest.raises(DatasetError, match="3 of 15 pictures") as refusal:
        train(ask(data=data))
    for name in ("text.png", "empty.png", "dot.png: The picture is 1x1 pixels"):
        assert name in str(refusal.value)
