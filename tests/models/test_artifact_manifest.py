"""Files whose hash is right and whose manifest is not."""

import copy
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from models.artifact import read_manifest
from models.errors import ArtifactError

Forge = Callable[..., Path]
Refused = Callable[[Path], str]
Limit = Callable[[], AbstractContextManager[None]]


def changed(document: dict[str, Any], path: str, value: object) -> str:
    """The manifest's JSON with one field set to another value."""
    document = copy.deepcopy(document)
    *folders, last = path.split(".")
    place = document
    for folder in folders:
        place = place[folder]
    place[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("none", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"format":' + "9" * 5000 + "}", "not JSON"),
        ("null", "format version is None"),
        ("[]", "format version is None"),
        ("{}", "format version is None"),
        ('{"format":1}', "format version is 1"),
        ('{"format":"2"}', "format version is '2'"),
        ('{"format":2}', "manifest is wrong at category"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused(forge: Forge, refused: Refused, text: str, fault: str) -> None:
    path = forge(manifest=text)
    assert fault in refused(path)
    with pytest.raises(ArtifactError, match=fault):
        read_manifest(path)


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ("format", 1, "format version is 1; this JigSight reads 2 and 3. Train it again"),
        ("category", "../../etc", "manifest is wrong at category"),
        ("category", "a/b", "manifest is wrong at category"),
        ("category", "plate\n", "manifest is wrong at category"),
        ("detector.preprocess.image_size", 2**40, "manifest is wrong at detector.preprocess.image_size"),
        ("detector.preprocess.image_size", 96, "its manifest asks for"),
        ("detector.preprocess.std", [1, 1, 1], "preprocess.std contradicts the manifest"),
        ("detector.preprocess.mean", [0.485, 0.456, 0.5], "preprocess.mean contradicts the manifest"),
        ("detector.preprocess.tiles", 2, "its manifest asks for"),
        ("detector.preprocess.tiles", 9, "manifest is wrong at detector.preprocess.tiles"),
        (
            "detector.preprocess.align",
            {"name": "rotate"},
            "smoothing.kernel is F32 (5,); its manifest asks for F32 (9,)",
        ),
        ("detector.preprocess.align", {"name": "shift", "along": 5}, "manifest is wrong at detector.preprocess.align"),
        ("detector.scorer.name", "dense_gaussian", "manifest is wrong at detector.scorer.dense_gaussian.channels"),
        ("detector.scorer.name", "magic", "manifest is wrong at detector.scorer"),
        ("detector.scorer.dimensions", 10**9, "manifest is wrong at detector.scorer.gaussian.dimensions"),
        ("detector.scorer.dimensions", 449, "448 channels do not make 449 dimensions"),
        ("detector.scorer.rank", 33, "there is no rank 33 in 32 dimensions"),
        ("detector.scorer.rank", 5, "its manifest asks for I8 (256, 32, 5)"),
        ("detector.scorer", {"name": "dense_gaussian", "channels": 449}, "449 channels cannot be selected out of 448"),
        (
            "detector.scorer",
            {"name": "dense_gaussian", "channels": 4},
            "missing or left over: scorer.corrections, scorer.directions",
        ),
        (
            "detector.scorer",
            {"name": "memory_bank", "vectors": 9},
            "missing or left over: scorer.corrections, scorer.directions",
        ),
        ("detector.scorer", {"name": "coupled", "dimensions": 9, "vectors": 999}, "at most one vector a position"),
        ("detector.smoothing", 30, "smoothing of 30.0 px is too wide"),
        ("detector.smoothing", 3, "smoothing.kernel"),
        ("detector.fusion", "mfcsam", "missing or left over: fusion.direct1.bias"),
        ("detector.arch", "resnet50", "missing or left over: backbone.layer1.0.bn3.bias"),
        ("dataset.images", 23, "one F32 score for each of 23 images"),
        ("threshold.value", float("nan"), "manifest is wrong at threshold.value"),
        ("validation", {"auroc": float("inf")}, "manifest is wrong at validation.auroc"),
        ("recipe", {"epsilon": float("inf")}, "not plain JSON"),
        ("recipe", {"name": "\ud800"}, "not plain JSON"),
        ("extra", 1, "manifest is wrong at extra"),
    ],
)
def test_a_manifest_with_an_impossible_field_is_refused(
    forge: Forge, refused: Refused, document: dict[str, Any], place: str, value: object, fault: str
) -> None:
    assert fault in refused(forge(manifest=changed(document, place, value)))


@pytest.mark.parametrize("depth", [300, 900, 5000])
def test_a_bottomless_recipe_is_refused(forge: Forge, refused: Refused, document: dict[str, Any], depth: int) -> None:
    text = changed(document, "recipe", {"deep": "HERE"}).replace('"HERE"', "[" * depth + "]" * depth)
    assert "JSON" in refused(forge(manifest=text))


def test_a_key_that_is_there_twice_is_refused(forge: Forge, refused: Refused, document: dict[str, Any]) -> None:
    text = json.dumps(document)
    for twice in (text[:-1] + ', "category": "ring"}', text.replace('"value"', '"value": 1e9, "value"')):
        assert "names a key twice" in refused(forge(manifest=twice))


def test_a_number_too_large_for_a_float_is_refused(forge: Forge, refused: Refused, document: dict[str, Any]) -> None:
    text = changed(document, "recipe", {"epsilon": "HERE"}).replace('"HERE"', "1e999")
    assert "not plain JSON" in refused(forge(manifest=text))


def test_an_ordinary_safetensors_file_is_refused(forge: Forge, refused: Refused, tensors: dict[str, Tensor]) -> None:
    assert "no 'jigsight' entry" in refused(forge(content=save({"a": torch.ones(1)})))
    assert "no 'jigsight' entry" in refused(forge(content=save(tensors, {"Jigsight": "{}"})))


@pytest.mark.parametrize("fusion", ["none", "mfcsam"])
@pytest.mark.parametrize(
    "scorer",
    [
        {"name": "gaussian", "dimensions": 1792, "rank": 1792, "shrinkage": 0.1, "pooling": 7},
        {"name": "dense_gaussian", "channels": 1792},
    ],
    ids=lambda scorer: scorer["name"],
)
def test_a_manifest_of_a_terabyte_takes_no_memory(
    forge: Forge,
    refused: Refused,
    little_memory: Limit,
    document: dict[str, Any],
    fusion: str,
    scorer: dict[str, object],
) -> None:
    document = copy.deepcopy(document)
    document["detector"] |= {"arch": "wide_resnet50_2", "fusion": fusion}
    document["detector"]["preprocess"]["image_size"] = 2048
    document["detector"]["scorer"] = scorer
    path = forge(new_tensors={"calibration.scores": torch.ones(24)}, manifest=json.dumps(document))
    with little_memory():
        assert "tensors are missing or left over" in refused(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_manifest_makes_the_reader_fail_otherwise(
    forge: Forge, refused: Refused, document: dict[str, Any], data: st.DataObject
) -> None:
    text = changed(
        document,
        data.draw(st.sampled_from([*document, *(f"detector.{k}" for k in document["detector"])])),
        data.draw(json_values),
    )
    path = forge(new_tensors={"a": torch.ones(1)}, manifest=text)
    refused(path)
    try:
        manifest = read_manifest(path)
    except ArtifactError:
        return
    assert json.loads(manifest.to_json())["category"] == manifest.category
