"""What an artifact says about itself: fields, ranges, canonical JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.manifest import Manifest, ThresholdRecord

DETECTOR = {
    "arch": "resnet18",
    "preprocess": {
        "image_size": 64,
        "resize": None,
        "tiles": 1,
        "align": {"name": "rotate", "along": 1.5, "across": 1.0},
        "reduced_jpeg": True,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
    },
    "fusion": "none",
    "scorer": {"name": "gaussian", "dimensions": 448, "rank": 32, "shrinkage": 0.03, "pooling": 3},
    "smoothing": 4.0,
}
DOCUMENT: dict[str, Any] = {
    "format": 3,
    "category": "flange",
    "kind": "object",
    "kind_reason": "its border is plain",
    "detector": DETECTOR,
    "weights": {"source": "imagenet", "sha256": "0" * 64},
    "threshold": {"rule": "conformal", "value": 7.25, "false_reject_rate": 0.02, "pixel": 5.5},
    "choices": [
        {"stage": "alignment", "kept": True, "reason": "the best", "figures": {"none": 0.8, "rotate x1.5 x1": 0.9}},
        {"stage": "jigsaw", "kept": False, "reason": "no gain", "figures": {"image_auroc": None}},
        {"stage": "settings", "kept": True, "reason": "the best of two", "figures": {}},
    ],
    "validation": {"image_auroc": 0.9},
    "dataset": {"images": 24, "fingerprint": "1" * 64},
    "textures": "procedural",
    "ignored": "2" * 64,
    "refitted_from": "0123456789ab",
    "precision": "bfloat16",
    "recipe": {"name": "default", "nested": {"größe": [1, 2.5, "ü"]}},
    "packages": {"torch": "2.15.0"},
}


def changed(path: str, value: object) -> dict[str, Any]:
    """A copy of the document with one field set to another value."""
    document: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
    *folders, last = path.split(".")
    place = document
    for folder in folders:
        place = place[folder]
    place[last] = value
    return document


def test_json_and_manifest_are_the_same_thing() -> None:
    manifest = Manifest.model_validate(DOCUMENT)
    assert json.loads(manifest.to_json()) == DOCUMENT
    assert Manifest.model_validate_json(manifest.to_json()) == manifest


def test_the_json_is_canonical() -> None:
    text = Manifest.model_validate(DOCUMENT).to_json()
    assert text == json.dumps(DOCUMENT, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    backwards = {key: DOCUMENT[key] for key in reversed(DOCUMENT)}
    assert Manifest.model_validate(backwards).to_json() == text
    assert "größe" in text


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        ".",
        "../up",
        "a/b",
        "a\\b",
        "/etc",
        "-rf",
        "_x",
        ".hidden",
        "a b",
        "a\n",
        "a\0",
        "ä",
        "x" * 65,
        "a.b",
        "C:",
    ],
)
def test_a_category_is_safe_as_a_folder_and_in_an_address(name: str) -> None:
    with pytest.raises(ValidationError, match="category"):
        Manifest.model_validate(changed("category", name))


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True))
def test_ordinary_categories_are_fine(name: str) -> None:
    assert Manifest.model_validate(changed("category", name)).category == name


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 1),
        ("format", 4),
        ("format", "2"),
        ("kind", "liquid"),
        ("detector.arch", "resnet34"),
        ("detector.preprocess.image_size", 2**31),
        ("detector.preprocess.image_size", 10**400),
        ("detector.preprocess.image_size", -64),
        ("detector.preprocess.image_size", 65),
        ("detector.preprocess.resize", 32),
        ("detector.preprocess.std", [0.2, 0.2, 0]),
        ("detector.preprocess.std", [0.2, float("nan"), 0.2]),
        ("detector.preprocess.mean", [0.2]),
        ("detector.fusion", "sum"),
        ("detector.preprocess.tiles", 9),
        ("detector.preprocess.align", {"name": "mirror"}),
        ("detector.preprocess.align", {"name": "rotate", "along": 9}),
        ("detector.smoothing", -1),
        ("detector.smoothing", float("nan")),
        ("detector.smoothing", 33),
        ("detector.smoothing", 16),  # wider than the map of a 64 px input
        ("weights.sha256", "0" * 63),
        ("weights.sha256", "G" * 64),
        ("threshold.rule", "guess"),
        ("threshold.value", float("nan")),
        ("threshold.value", float("inf")),
        ("threshold.value", None),
        ("threshold.false_reject_rate", 0),
        ("threshold.false_reject_rate", 1),
        ("choices", [{"stage": "magic", "kept": True, "reason": ""}]),
        ("validation", {"image_auroc": float("nan")}),
        ("validation", {"image_auroc": "good"}),
        ("choices", [{"stage": "alignment", "kept": True, "reason": "", "figures": {"none": float("nan")}}]),
        ("ignored", "2" * 63),
        ("ignored", True),
        ("refitted_from", 12),
        ("dataset.images", 1),
        ("dataset.images", 2.5),
        ("packages", {"torch": 2}),
        ("recipe", []),
        ("surprise", 1),
        ("detector.surprise", 1),
    ],
)
def test_what_cannot_be_is_refused_by_name(path: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Manifest.model_validate(changed(path, value))
    places = {".".join(str(part) for part in error["loc"]) for error in caught.value.errors()}
    assert any(path.startswith(place) or place.startswith(path) for place in places), places


SCORERS: list[dict[str, Any]] = [
    {"name": "gaussian", "dimensions": 448, "rank": 32, "shrinkage": 0.03, "pooling": 3},
    {"name": "dense_gaussian", "channels": 16},
    {"name": "memory_bank", "vectors": 100, "levels": [2, 3], "neighbours": 9},
    {"name": "coupled", "dimensions": 224, "vectors": 256, "neighbours": 3},
]


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer["name"])
def test_there_are_four_scorers(scorer: dict[str, Any]) -> None:
    manifest = Manifest.model_validate(changed("detector.scorer", scorer))
    assert json.loads(manifest.to_json())["detector"]["scorer"] == scorer


@pytest.mark.parametrize(
    ("scorer", "field", "value"),
    [
        (0, "rank", 0),
        (0, "dimensions", 10**9),
        (0, "shrinkage", 0),
        (0, "pooling", 2),
        (0, "channels", 16),  # another scorer's
        (1, "channels", 0),
        (1, "channels", 10**9),
        (2, "vectors", 1),
        (2, "levels", [3, 2]),
        (3, "neighbours", 257),
        (0, "name", "isolation_forest"),
    ],
)
def test_a_scorer_that_cannot_be_is_refused(scorer: int, field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=r"detector\.scorer"):
        Manifest.model_validate(changed("detector.scorer", {**SCORERS[scorer], field: value}))


OPTIONAL = ("format", "ignored", "refitted_from", "precision")


@pytest.mark.parametrize("path", [key for key in DOCUMENT if key not in OPTIONAL] + ["threshold.false_reject_rate"])
def test_every_field_must_be_there(path: str) -> None:
    document = changed(path, None)
    *folders, last = path.split(".")
    place = document
    for folder in folders:
        place = place[folder]
    del place[last]
    with pytest.raises(ValidationError, match=path):
        Manifest.model_validate(document)


def test_it_is_frozen() -> None:
    manifest = Manifest.model_validate(DOCUMENT)
    with pytest.raises(ValidationError, match="frozen"):
        manifest.category = "ring"  # type: ignore[misc]


def test_infinity_never_gets_into_the_json() -> None:
    manifest = Manifest.model_validate(changed("recipe", {"epsilon": float("inf")}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        manifest.to_json()


def test_a_threshold_from_before_there_were_pixel_thresholds_is_read() -> None:
    record = ThresholdRecord.model_validate({"rule": "train_max", "value": 3.0, "false_reject_rate": None})
    assert record.pixel is None
    with pytest.raises(ValidationError, match="finite"):
        ThresholdRecord(rule="train_max", value=3.0, false_reject_rate=None, pixel=float("nan"))


def test_what_may_be_missing_is_nothing() -> None:
    document = {key: value for key, value in DOCUMENT.items() if key not in ("ignored", "refitted_from", "precision")}
    manifest = Manifest.model_validate(document)
    assert manifest.ignored is None
    assert manifest.refitted_from is None
    assert manifest.precision is None


def test_pictures_were_decoded_whole_before_there_was_a_choice() -> None:
    document: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
    del document["detector"]["preprocess"]["reduced_jpeg"]
    assert Manifest.model_validate(document).detector.preprocess.reduced_jpeg is False
