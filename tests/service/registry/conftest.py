"""A few real artifacts, made once, and folders into which tests put copies of them."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from service.registry.changes import Author
from service.registry.registry import Registry, open_registry
from service.storage.artifacts import Artifacts
from service.storage.database import Database

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def library(make: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Artifacts by name. `ring` has the network of `a`; `b` and `c` have others. Not to be changed."""
    folder = tmp_path_factory.mktemp("library")
    made = {name: make(folder, seed=seed) for seed, name in enumerate("abc", start=1)}
    return made | {"ring": make(folder, category="ring", seed=1)}


@pytest.fixture
def put(library: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Copy artifacts of the library into the folder `artifacts`, each a minute younger than the one before."""

    def copy(*names: str) -> Path:
        for name in names:
            source = library[name]
            target = tmp_path / "artifacts" / source.parent.name / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target.with_name(".copy"))
            when = 1_700_000_000 + 60 * list(library).index(name)
            os.utime(target.with_name(".copy"), (when, when))
            target.with_name(".copy").replace(target)
        return target

    return copy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that `put` fills."""
    (tmp_path / "artifacts").mkdir(exist_ok=True)
    return tmp_path / "artifacts"


@pytest.fixture
def store(database: Database) -> Artifacts:
    """Artifacts in an open database, of each kind in turn."""
    return Artifacts(database)


@pytest.fixture
def serve(folder: Path, store: Artifacts) -> Callable[[], Registry]:
    """A registry of the folder and the database, as a process that starts has one."""
    return lambda: open_registry(folder, device=torch.device("cpu"), artifacts=store)


@pytest.fixture
def author() -> Author:
    """Who changes things in tests."""
    return Author("ann", "r1")


@pytest.fixture
def forge_odd() -> Callable[[Path], Path]:
    """Beside an artifact put a younger one whose name is its hash, and whose means are not numbers."""

    def forge(path: Path) -> Path:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  it is no mapping
        tensors["scorer.mean1"].fill_(float("nan"))
        content = save(tensors, metadata)
        odd = path.with_name(hashlib.sha256(content).hexdigest()[:12] + path.suffix)
        odd.write_bytes(content)
        return odd

    return forge
