import json
import shutil
from pathlib import Path

import pytest

from models.artifact import load
from training.record import write_record


@pytest.fixture
def mine(artifact_path: Path, tmp_path: Path) -> Path:
    """A copy of the artifact."""
    return Path(shutil.copy(artifact_path, tmp_path))


def test_the_record_has_the_manifest_and_the_times(mine: Path) -> None:
    artifact = load(mine)
    assert write_record(artifact, {"features": 2.5, "total": 3.0}) is None
    record = json.loads(mine.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["version"] == artifact.version
    assert list(record["seconds"].items()) == [("features", 2.5), ("total", 3.0)]
    assert record["manifest"] == artifact.manifest.model_dump(mode="json")


def test_a_second_record_of_the_same_version_replaces_the_first(mine: Path) -> None:
    artifact = load(mine)
    for total in (1.0, 2.0):
        write_record(artifact, {"total": total})
    assert json.loads(mine.with_suffix(".json").read_text())["seconds"] == {"total": 2.0}
    assert {path.suffix for path in mine.parent.iterdir()} == {".safetensors", ".json"}
    load(mine)


def test_a_record_that_cannot_be_written_is_a_warning(mine: Path) -> None:
    artifact = load(mine)
    mine.with_suffix(".json").mkdir()
    warning = write_record(artifact, {"total": 1.0})
    assert warning is not None
    assert str(mine.with_suffix(".json")) in warning
    assert "Is a directory" in warning
    assert not list(mine.parent.glob(".incoming-*"))
