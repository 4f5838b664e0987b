"""Whole runs with other scorers, alignment, tiles and an ignore mask."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from models.artifact import load
from models.errors import DatasetError
from training.datasets import TestSample
from training.evaluate import evaluate
from training.picture_files import read_image
from training.pipeline import train_category
from training.progress import Progress
from training.request import TrainingRequest, TrainingResult


def train(request: TrainingRequest) -> TrainingResult:
    return train_category(request, Progress.silent())


def with_recipe(request: TrainingRequest, **overrides: dict[str, object]) -> TrainingRequest:
    """The request with other settings, by section; a scorer of another name replaces the recipe's."""
    recipe = request.recipe.model_dump(mode="json")
    for section, settings in overrides.items():
        old = {} if "name" in settings else recipe[section]
        recipe[section] = {**old, **settings}
    return replace(request, recipe=type(request.recipe).model_validate(recipe))


FEW = {
    "gaussian": {"rank": [4, 2], "shrinkage": 0.1, "pooling": [3, 1], "dimensions": 0.2},
    "dense_gaussian": {"channels": 24},
    "memory_bank": {"projection": 32},
    "coupled": {"steps": 8, "dimensions": 32},
}


@pytest.mark.parametrize("name", FEW)
def test_every_scorer_makes_an_artifact_that_judges_and_the_same_bytes_twice(
    ask: Callable[..., TrainingRequest], samples: Path, tmp_path: Path, name: str
) -> None:
    results = [
        train(with_recipe(ask(artifacts=tmp_path / side), scorer={"name": name, **FEW[name]})) for side in ("a", "b")
    ]
    assert results[0].artifact.read_bytes() == results[1].artifact.read_bytes()
    artifact = load(results[0].artifact)
    assert artifact.manifest.detector.scorer.name == name
    settings = [choice for choice in artifact.manifest.choices if choice.stage == "settings"]
    assert [len(choice.figures) for choice in settings] == ([4] if name == "gaussian" else [])

    tested = []
    for index, path in enumerate(sorted((samples / "flange/train/good").iterdir())[:4]):
        picture = read_image(path).copy()
        tested.append(TestSample(path, "good", None))
        picture[20:44, 20:44] = (255, 0, 255)
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
        tested.append(TestSample(tmp_path / f"{index}.png", "spot", None))
    evaluation = evaluate(artifact, tested)
    assert evaluation.image_auroc == 1.0
    assert evaluation.miss_rate == 0.0


@pytest.mark.parametrize("use", ["choose", "always"])
def test_parts_are_aligned_where_it_is_asked_for(
    ask: Callable[..., TrainingRequest], samples: Path, tmp_path: Path, use: str
) -> None:
    request = with_recipe(ask(use="always"), alignment={"use": use, "ways": ["rotate", "shift"], "stretches": [1.0]})
    result = train(request)
    again = train(replace(request, artifacts=tmp_path / "again"))
    assert result.artifact.read_bytes() == again.artifact.read_bytes()
    artifact = load(result.artifact)
    alignment = artifact.manifest.choices[0]
    assert alignment.stage == "alignment"
    assert len(alignment.figures) == (3 if use == "choose" else 2)
    assert (artifact.manifest.detector.preprocess.align is not None) is alignment.kept
    assert alignment.kept or use == "choose"
    picture = read_image(samples / "flange/train/good/000.png")
    ruined = picture.copy()
    ruined[28:36, 28:36] = (255, 0, 255)
    tiles = torch.stack([artifact.detector.preprocess.resize(image) for image in (picture, ruined)])
    good, bad = artifact.detector(tiles).score
    assert bad > good


@pytest.mark.parametrize("kind", ["auto", "texture"])
def test_an_alignment_is_not_for_textures(ask: Callable[..., TrainingRequest], kind: str) -> None:
    artifact = load(train(with_recipe(ask(category="cloth", kind=kind), alignment={"use": "always"})).artifact)
    assert artifact.manifest.detector.preprocess.align is None
    assert not artifact.manifest.choices[0].kept
    assert artifact.detector.preprocess.config.taken == 64


def test_pictures_can_be_cut_into_tiles(ask: Callable[..., TrainingRequest], tmp_path: Path) -> None:
    tiled = with_recipe(ask(use="always"), preprocess={"image_size": 32, "tiles": 2})
    result = train(tiled)
    again = train(replace(tiled, artifacts=tmp_path / "again"))
    assert result.artifact.read_bytes() == again.artifact.read_bytes()
    detector = load(result.artifact).detector
    detection = detector(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert detection.map.shape == (1, 16, 16)


def test_what_is_painted_in_the_ignore_mask_is_not_looked_at(
    ask: Callable[..., TrainingRequest], samples: Path, tmp_path: Path
) -> None:
    painted = Image.new("RGB", (128, 128))
    painted.paste((255, 0, 0), (0, 0, 64, 128))
    painted.save(tmp_path / "ignore.png")
    artifact = load(train(ask(ignore=tmp_path / "ignore.png", artifacts=tmp_path / "ignoring")).artifact)
    plain = load(train(ask()).artifact)
    assert plain.manifest.ignored is None
    assert artifact.manifest.ignored is not None
    picture = read_image(samples / "flange/train/good/001.png")
    scores = {}
    for name, left in (("left", 4), ("right", 44)):
        ruined = picture.copy()
        ruined[24:40, left : left + 16] = (255, 0, 255)
        tile = artifact.detector.preprocess.resize(ruined).unsqueeze(0)
        score, score_map = artifact.detector(tile)
        assert not score_map[0, :, :8].any()
        scores[name] = float(score[0] / plain.detector(tile).score[0])
        assert name == "left" or score[0] > artifact.manifest.threshold.value
    # Not nothing: what the network sees from beside the mask reaches into it.
    assert scores["left"] < 0.8 * scores["right"]


def test_an_ignore_mask_of_another_shape_is_refused(ask: Callable[..., TrainingRequest], tmp_path: Path) -> None:
    Image.new("L", (64, 32), 255).save(tmp_path / "ignore.png")
    with pytest.raises(DatasetError, match=r"ignore\.png"):
        train(ask(ignore=tmp_path / "ignore.png"))
