"""A category's folder stands for its newest artifact."""

import os
from pathlib import Path

import pytest

from models.errors import ArtifactError
from models.locate_artifact import find_artifact


def put(path: Path, *, time: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (time, time))
    return path


def test_a_file_is_itself_even_if_it_is_not_there(tmp_path: Path) -> None:
    assert find_artifact(tmp_path / "a.safetensors") == tmp_path / "a.safetensors"


def test_the_file_changed_last_is_taken(tmp_path: Path) -> None:
    newest = put(tmp_path / "plate" / "aa.safetensors", time=3000)
    put(tmp_path / "plate" / "bb.safetensors", time=2000)
    put(tmp_path / "plate" / ".incoming.safetensors", time=9000)
    put(tmp_path / "plate" / "notes.txt", time=9000)
    assert find_artifact(tmp_path / "plate") == newest
    greater = put(tmp_path / "plate" / "cc.safetensors", time=3000)
    assert find_artifact(tmp_path / "plate") == greater


def test_a_folder_without_one_says_where_there_are_some(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no artifact.*jigsight train"):
        find_artifact(tmp_path)
    put(tmp_path / "plate" / "aa.safetensors", time=1)
    with pytest.raises(ArtifactError, match="one of its categories: plate"):
        find_artifact(tmp_path)
