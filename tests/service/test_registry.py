"""Which artifacts are served, which is active, and that none is refused silently."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from service.errors import UnknownCategory
from service.registry import open_registry

CPU = torch.device("cpu")
Make = Callable[..., Path]


def test_the_file_changed_last_is_active(make: Make, tmp_path: Path) -> None:
    older, newer = make(tmp_path, seed=1), make(tmp_path, seed=2)
    os.utime(older, (2_000_000_000, 2_000_000_000))
    os.utime(newer, (1_000_000_000, 1_000_000_000))
    entry = open_registry(tmp_path, device=CPU, activated={}).entry("plate")
    assert entry.active.version == older.stem
    assert list(entry.versions) == [newer.stem, older.stem]


def test_files_changed_at_the_same_time_are_ordered_by_version(make: Make, tmp_path: Path) -> None:
    paths = [make(tmp_path, seed=seed) for seed in (1, 2, 3)]
    for path in paths:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    entry = open_registry(tmp_path, device=CPU, activated={}).entry("plate")
    assert entry.active.version == max(path.stem for path in paths)


def test_the_database_decides_where_it_names_a_version(make: Make, tmp_path: Path) -> None:
    versions = [make(tmp_path, seed=seed).stem for seed in (1, 2, 3)]
    for version in versions:
        registry = open_registry(tmp_path, device=CPU, activated={"plate": version})
        assert registry.entry("plate").active.version == version
        assert registry.refused == ()


def test_a_named_version_that_is_gone_is_not_replaced(make: Make, tmp_path: Path) -> None:
    other = make(tmp_path, seed=1).stem
    registry = open_registry(tmp_path, device=CPU, activated={"plate": "0123456789ab", "ring": "ba9876543210"})
    with pytest.raises(UnknownCategory, match="plate"):
        registry.entry("plate")
    reasons = {refusal.file: refusal.reason for refusal in registry.refused}
    assert other in reasons["plate/0123456789ab.safetensors"]
    assert "no usable file" in reasons["ring/ba9876543210.safetensors"]


def test_bad_files_are_named_and_the_others_served(make: Make, tmp_path: Path, artifact_path: Path) -> None:
    ring = make(tmp_path, category="ring")
    (tmp_path / "plate").mkdir()
    cut = tmp_path / "plate" / artifact_path.name
    cut.write_bytes(artifact_path.read_bytes()[:-1])
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / artifact_path.name
    moved.write_bytes(artifact_path.read_bytes())
    (tmp_path / "plate" / "dangling.safetensors").symlink_to(tmp_path / "nowhere")
    registry = open_registry(tmp_path, device=CPU, activated={})
    assert list(registry.entries) == ["ring"]
    assert registry.entry("ring").active.path == ring
    reasons = {refusal.file: refusal.reason for refusal in registry.refused}
    assert set(reasons) == {
        f"plate/{artifact_path.name}",
        f"elsewhere/{artifact_path.name}",
        "plate/dangling.safetensors",
    }
    assert "'plate'" in reasons[f"elsewhere/{artifact_path.name}"]
    assert not any(str(tmp_path) in reason for reason in reasons.values())
    assert reasons[f"plate/{artifact_path.name}"].startswith("it is truncated or damaged")  # the file is named already


def test_a_bad_file_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "plate").mkdir()
    (tmp_path / "plate" / "0123456789ab.safetensors").write_bytes(b"not an artifact")
    open_registry(tmp_path, device=CPU, activated={})
    assert str(tmp_path / "plate" / "0123456789ab.safetensors") in caplog.text


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    registry = open_registry(tmp_path / "nowhere", device=CPU, activated={})
    assert [refusal.file for refusal in registry.refused] == ["."]
    with pytest.raises(UnknownCategory, match="jigsight train"):
        registry.entry("plate")
