"""Reading once: what happens to the file afterwards, headers that lie, and agreement with safetensors itself."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load as reference
from safetensors.torch import load_file, save

from models.artifact import Artifact, load, verify
from models.errors import ArtifactError, ArtifactTooLarge
from models.images import decode
from models.tensor_file import open_tensors

Forge = Callable[..., Path]


def readings(artifact: Artifact, pictures: list[bytes]) -> torch.Tensor:
    with torch.inference_mode():
        tiles = [artifact.detector.preprocess.resize(decode(data)) for data in pictures]
        return artifact.detector(torch.stack(tiles)).map


@pytest.mark.parametrize("fate", ["overwritten", "cut off", "deleted"])
def test_what_happens_to_the_file_does_not_reach_a_loaded_detector(
    forge: Forge, good: Callable[[int], bytes], bad: Callable[[int], bytes], fate: str
) -> None:
    path = forge()
    artifact = load(path)  # nothing of it has been used yet
    if fate == "overwritten":
        with path.open("r+b") as file:
            file.write(b"\xff" * path.stat().st_size)
            os.fsync(file.fileno())
    elif fate == "cut off":
        os.truncate(path, 0)
    else:
        path.unlink()
    pictures = [good(1), bad(1)]
    after = readings(artifact, pictures)
    torch.testing.assert_close(after, readings(load(forge()), pictures), rtol=0, atol=0)


def test_tensors_and_digest_are_those_of_the_file(artifact_path: Path) -> None:
    with open_tensors(artifact_path) as file:
        tensors, digest = file.tensors({"smoothing.kernel": torch.float64})
        again = file.digest()
        assert file.tensors({})[1] == again
    assert digest == again == hashlib.sha256(artifact_path.read_bytes()).hexdigest()
    expected = load_file(artifact_path)
    assert tensors.pop("smoothing.kernel").dtype == torch.float64
    assert tensors.keys() == expected.keys() - {"smoothing.kernel"}
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])


def test_verifying_finds_an_altered_file_and_keeps_nothing(forge: Forge, artifact: Artifact) -> None:
    path = forge()
    assert verify(path) == artifact.manifest
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(ArtifactError, match="not the hash of its content"):
        verify(path)


def test_a_lack_of_memory_is_no_fault_of_the_file(artifact_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "frombuffer", full)
    with pytest.raises(ArtifactTooLarge, match="not enough memory"):
        load(artifact_path)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
LIES: dict[str, dict[str, Any]] = {
    "a gap at the beginning": {"a": ENTRY | {"data_offsets": [4, 12]}},
    "a gap": {"a": ENTRY, "b": ENTRY | {"data_offsets": [12, 20]}},
    "an overlap": {"a": ENTRY, "b": ENTRY | {"data_offsets": [4, 12]}},
    "the same place twice": {"a": ENTRY, "b": ENTRY},
    "backwards": {"a": ENTRY | {"data_offsets": [8, 0]}},
    "negative": {"a": ENTRY | {"shape": [-1, -2]}},
    "too many bytes": {"a": ENTRY | {"data_offsets": [0, 16]}},
    "a shape that is no list": {"a": ENTRY | {"shape": 2}},
    "a shape of words": {"a": ENTRY | {"shape": ["2"]}},
    "a fraction": {"a": ENTRY | {"shape": [2.0]}},
    "an unknown type": {"a": ENTRY | {"dtype": "F33"}},
    "no type": {"a": {"shape": [2], "data_offsets": [0, 8]}},
    "three offsets": {"a": ENTRY | {"data_offsets": [0, 4, 8]}},
    "an entry that is a list": {"a": [0, 8]},
    "metadata that are numbers": {"__metadata__": {"jigsight": 1}, "a": ENTRY},
    "metadata that are a list": {"__metadata__": [], "a": ENTRY},
}


def framed(header: str, body: int) -> bytes:
    return len(header.encode()).to_bytes(8, "little") + header.encode() + bytes(body)


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_contradicts_itself_is_refused(lie: str, tmp_path: Path) -> None:
    for body in (0, 8, 12, 16, 20):
        content = framed(json.dumps(LIES[lie]), body)
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ArtifactError, match="truncated or damaged"), open_tensors(tmp_path / "file"):
            pass
        with pytest.raises(SafetensorError):
            reference(content)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    entry = json.dumps(ENTRY)
    (tmp_path / "file").write_bytes(framed(f'{{"a": {entry}, "a": {entry}}}', 8))
    with pytest.raises(ArtifactError, match="truncated or damaged"), open_tensors(tmp_path / "file"):
        pass


def test_a_flag_that_is_neither_true_nor_false_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]}})
    (tmp_path / "file").write_bytes(framed(header, 1) + b"\2")
    with open_tensors(tmp_path / "file") as file, pytest.raises(ArtifactError, match="damaged"):
        file.tensors({})


def test_what_the_library_writes_is_read_whatever_its_shapes(tmp_path: Path) -> None:
    written = {
        "one": torch.tensor(3.0),
        "none": torch.zeros(0, 4),
        "half": torch.rand(3, 1, 2).half(),
        "flags": torch.tensor([True, False]),
        "count": torch.tensor([1, -2]),
        "bytes": torch.arange(5, dtype=torch.uint8),
    }
    (tmp_path / "file").write_bytes(save(written, {"a": "b"}))
    with open_tensors(tmp_path / "file") as file:
        assert file.metadata == {"a": "b"}
        tensors, _ = file.tensors({})
    assert tensors.keys() == written.keys()
    for name, tensor in written.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


@pytest.mark.parametrize("shape", [[1] * 9, [2**63, 0], [2**63 - 1] * 100_000 + [0]])
def test_shapes_that_no_tensor_has_are_refused_before_they_are_multiplied(tmp_path: Path, shape: list[int]) -> None:
    count = 0 if 0 in shape else 4
    header = json.dumps({"t": {"dtype": "F32", "shape": shape, "data_offsets": [0, count]}}).encode()
    path = tmp_path / "0123456789ab.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(count))
    with pytest.raises(ArtifactError, match="damaged"), open_tensors(path):
        pass
