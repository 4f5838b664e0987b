"""docs/artifact.md: its Python reads a real artifact, its table names every field, its example is true."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from models.artifact import Artifact
from models.manifest import Manifest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "artifact.md").read_text("utf-8")


@pytest.fixture(scope="module")
def programme() -> dict[str, Any]:
    """The names that the document's Python defines."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL):
        exec(compile(block, "docs/artifact.md", "exec"), names)
    return names


def test_it_imports_nothing_of_ours(programme: dict[str, Any]) -> None:
    imported = re.findall(r"^(?:import|from) (\w+)", DOCUMENT, flags=re.MULTILINE)
    assert sorted(imported) == ["json", "numpy", "struct"]


def test_reading_by_the_document_gives_what_the_loader_gives(programme: dict[str, Any], artifact: Artifact) -> None:
    manifest, tensors = programme["read"](artifact.path)
    assert Manifest.model_validate(manifest) == artifact.manifest
    state = {**artifact.detector.state_dict(), "calibration.scores": artifact.calibration.scores}
    assert tensors.keys() == state.keys()
    tensors["calibration.scores"] = np.sort(tensors["calibration.scores"])
    for name, tensor in state.items():
        assert np.array_equal(tensors[name], tensor.numpy()), name


def test_scoring_by_the_document_gives_the_detectors_score(programme: dict[str, Any], artifact: Artifact) -> None:
    _, tensors = programme["read"](artifact.path)
    detector = artifact.detector
    tile = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features = detector.scorer.embed(detector.levels(tile))[0]
        wanted = detector(tile)
    score, score_map = programme["score"](tensors, features.numpy())
    assert score == pytest.approx(float(wanted.score), rel=1e-5)
    assert np.allclose(score_map, wanted.map[0].numpy(), rtol=1e-4)


def fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += fields(inner, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def test_every_field_of_the_manifest_is_in_the_table() -> None:
    table = re.sub(
        r"`detector\.preprocess\.mean`, `\.std`", "`detector.preprocess.mean` `detector.preprocess.std`", DOCUMENT
    )
    missing = [name for name in fields(Manifest) if f"`{name}`" not in table]
    assert missing == []


def test_the_layout_is_as_described(artifact: Artifact) -> None:
    data = artifact.path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length]
    assert header[:1] == b"{"
    assert length % 8 == 0
    text = header.decode().rstrip(" ")
    offsets = [tuple(map(int, pair)) for pair in re.findall(r'"data_offsets":\[(\d+),(\d+)\]', text)]
    ends = [0, *(end for _, end in sorted(offsets))]
    assert [begin for begin, _ in sorted(offsets)] == ends[:-1]
    assert 8 + length + ends[-1] == len(data)
