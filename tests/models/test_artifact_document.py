"""docs/artifact.md: its Python reads a real artifact, its table names every field, its example is true."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from models.artifact import Artifact
from models.compact_gaussian import CompactGaussian
from models.detector import Detector, FusionName, build_detector
from models.gaussian import DenseGaussian
from models.manifest import Manifest
from models.mfcsam import concatenate
from models.pooling import pooled

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


def features(detector: Detector, tile: torch.Tensor) -> NDArray[np.float32]:
    """The y of the document's step 3, (p, d)."""
    levels, _ = detector.levels(tile)
    scorer = detector.scorer
    if isinstance(scorer, DenseGaussian):
        return np.asarray(scorer.embed(levels)[0].numpy())
    assert isinstance(scorer, CompactGaussian)
    near = pooled(levels, scorer.config.pooling)
    joined = concatenate([level - mean for level, mean in zip(near, scorer.means, strict=True)])
    return np.asarray(joined.flatten(2)[0].T.numpy())


@pytest.fixture(params=["artifact", "dense_artifact"])
def either(request: pytest.FixtureRequest) -> Artifact:
    """One of each Gaussian."""
    found: Artifact = request.getfixturevalue(request.param)
    return found


def test_reading_by_the_document_gives_what_the_loader_gives(programme: dict[str, Any], either: Artifact) -> None:
    manifest, tensors = programme["read"](either.path)
    assert Manifest.model_validate(manifest) == either.manifest
    state = {**either.detector.state_dict(), "calibration.scores": either.calibration.scores}
    assert tensors.keys() == state.keys()
    tensors["calibration.scores"] = np.sort(tensors["calibration.scores"])
    for name, tensor in state.items():
        assert np.array_equal(tensors[name], tensor.numpy()), name


def test_scoring_by_the_document_gives_the_detectors_score(programme: dict[str, Any], either: Artifact) -> None:
    manifest, tensors = programme["read"](either.path)
    detector = either.detector
    tile = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        y = features(detector, tile)
        wanted = detector(tile)
    score, score_map = programme["score"](manifest, tensors, y)
    assert score == pytest.approx(float(wanted.score), rel=1e-5)
    assert np.allclose(score_map, wanted.map[0].numpy(), rtol=1e-4)


def test_ignoring_by_the_document_is_the_detectors(programme: dict[str, Any], either: Artifact) -> None:
    manifest, tensors = programme["read"](either.path)
    detector = deepcopy(either.detector)
    tile = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert detector.smoothing.keep is not None
    with torch.inference_mode():
        y = features(detector, tile)
        detector.smoothing.keep[3:12, 5:] = False
        wanted = detector(tile)
    tensors["smoothing.keep"] = detector.smoothing.keep.numpy()
    score, score_map = programme["score"](manifest, tensors, y)
    assert score == pytest.approx(float(wanted.score), rel=1e-5)
    assert np.allclose(score_map, wanted.map[0].numpy(), rtol=1e-4)


def fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        # A field may be one of several models, or none.
        options = () if get_origin(field.annotation) is tuple else get_args(field.annotation)
        models = [
            each for each in (field.annotation, *options) if isinstance(each, type) and issubclass(each, BaseModel)
        ]
        for each in models:
            found += fields(each, f"{prefix}{name}.")
        if field.annotation not in models:
            found.append(prefix + name)
    return list(dict.fromkeys(found))


def test_every_field_of_the_manifest_is_in_the_table() -> None:
    # `a.b.c`, `.d` stands for `a.b.c` and `a.b.d`.
    table = re.sub(r"`([a-z.]+\.)([a-z]+)`, `\.([a-z]+)`", r"`\1\2` `\1\3`", DOCUMENT)
    named = fields(Manifest)
    assert {"threshold.pixel", "detector.scorer.rank", "detector.preprocess.align.across"} <= set(named)
    assert [name for name in named if f"`{name}`" not in table] == []


@pytest.mark.parametrize("fusion", get_args(FusionName))
def test_every_fusion_is_in_the_tables(fusion: FusionName, artifact: Artifact) -> None:
    assert f'`"{fusion}"`' in DOCUMENT
    with torch.device("meta"):
        built = build_detector(artifact.manifest.detector.model_copy(update={"fusion": fusion}))
    modules = {".".join(name.split(".")[:2]) for name in built.state_dict() if name.startswith("fusion.")}
    assert [name for name in modules if f"`{name}.*`" not in DOCUMENT and f"`{name}`" not in DOCUMENT] == []


def test_every_tensor_is_in_the_tables(artifact: Artifact, dense_artifact: Artifact) -> None:
    names = {name for each in (artifact, dense_artifact) for name in each.detector.state_dict()}
    spread = re.sub(r"`([a-z.]+)1`, `2`, `3`", r"`\g<1>1` `\g<1>2` `\g<1>3`", DOCUMENT)
    assert [name for name in names if f"`{name}`" not in spread and not name.startswith("backbone.")] == []


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
