"""What is said at start."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from service.announcement import announcement
from service.registry.registry import open_registry
from service.storage.artifacts import Artifacts
from service.storage.database import Database


def test_at_start_a_waiting_version_is_told_with_what_to_do(
    make: Callable[..., Path], tmp_path: Path, database: Database
) -> None:
    older = make(tmp_path, seed=1)
    os.utime(older, (1_000_000_000, 1_000_000_000))
    registry = open_registry(tmp_path, device=torch.device("cpu"), artifacts=Artifacts(database))
    assert "newer" not in announcement("http://127.0.0.1:8000", registry, without_keys=True)
    newer = make(tmp_path, seed=2)
    registry.look()
    told = announcement("http://127.0.0.1:8000", registry, without_keys=False)
    assert f"plate (texture, version {older.stem})" in told
    assert f"plate version {newer.stem} waits" in told
    assert "curl -X POST http://127.0.0.1:8000/v1/categories/plate/activate" in told
    assert f"""-d '{{"version": "{newer.stem}"}}'""" in told
    assert '-H "Authorization: Bearer $JIGSIGHT_KEY"' in told
    assert "by API keys" in told
    assert "Authorization" not in announcement("http://127.0.0.1:8000", registry, without_keys=True)


def test_a_category_whose_file_is_gone_is_not_announced_as_served(
    make: Callable[..., Path], tmp_path: Path, database: Database
) -> None:
    path = make(tmp_path, seed=1)
    artifacts = Artifacts(database)
    open_registry(tmp_path, device=torch.device("cpu"), artifacts=artifacts)
    path.unlink()
    registry = open_registry(tmp_path, device=torch.device("cpu"), artifacts=artifacts)
    told = announcement("http://127.0.0.1:8000", registry, without_keys=True)
    assert "category       plate" not in told
    assert f"not served     plate, version {path.stem}: " in told
