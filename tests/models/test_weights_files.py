"""Weights files that are none: refused by name, and nothing in them is ever run."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.backbone import Backbone, build_backbone
from models.errors import WeightsError
from models.weights import load_weights


@pytest.fixture(scope="module")
def small() -> Backbone:
    """A backbone that no test succeeds in loading."""
    return build_backbone("mobilenet_v2")


# torch warns of the pickle's protocol before it refuses what is in it
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("form", ["archive", "pickle", "old pickle"])
def test_code_in_a_file_is_refused_and_never_run(
    small: Backbone, payload: Callable[[Path], object], tmp_path: Path, name: str, form: str
) -> None:
    path, target = tmp_path / name, tmp_path / "pwned"
    document = {"conv1.weight": payload(target)}
    if form == "archive":
        torch.save(document, path)
    else:
        path.write_bytes(pickle.dumps(document, protocol=2 if form == "old pickle" else None))
    with pytest.raises(WeightsError) as caught:
        load_weights(small, "mobilenet_v2", str(path))
    assert str(path) in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's advice to run it all the same
    assert not target.exists()
    if form == "archive":  # the payload is a real one
        with path.open("rb") as file:
            torch.load(file, weights_only=False)
        assert target.exists()


@pytest.mark.parametrize("content", [b"", b"\0", b"not weights", b"PK\x03\x04 torn", b"\x80\x02}", b"(" * 100])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_garbage_is_refused(small: Backbone, tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_weights(small, "mobilenet_v2", str(path))


@pytest.mark.filterwarnings("ignore")  # torch has much to say about damaged files
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_pickles_are_refused_or_do_not_fit(tmp_path: Path, small: Backbone, data: st.DataObject) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=data.draw(st.booleans()))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    with pytest.raises(WeightsError):
        load_weights(small, "mobilenet_v2", str(path))


@pytest.mark.parametrize(
    "document", [torch.ones(3), {}, {"a": 1}, {1: torch.ones(1)}, [torch.ones(1)], {"state_dict": {}}]
)
def test_files_without_a_state_dict_are_refused(small: Backbone, tmp_path: Path, document: object) -> None:
    torch.save(document, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        load_weights(small, "mobilenet_v2", str(tmp_path / "w.pth"))


@pytest.mark.parametrize("source", ["nowhere.pth", ".", "Imagenet", ""])
def test_a_file_that_is_not_there_is_named(
    small: Backbone, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"There is no weights file .*'imagenet' or 'none'"):
        load_weights(small, "mobilenet_v2", source)
