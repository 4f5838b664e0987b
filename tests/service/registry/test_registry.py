"""Which version judges, what is said of those that cannot, and recovery without a restart."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sqlalchemy import create_engine, update

from models import artifact as module
from models.errors import ArtifactTooLarge
from service.errors import ArtifactUnavailable, UnknownCategory
from service.registry import changes, scan
from service.registry.changes import Author
from service.registry.registry import Registry, open_registry
from service.storage.artifacts import Artifacts
from service.storage.audit import Change
from service.storage.database import Database
from service.storage.tables import ARTIFACTS

Put = Callable[..., Path]
Serve = Callable[[], Registry]


def test_the_first_version_of_a_category_is_activated_and_noted(
    put: Put, serve: Serve, store: Artifacts, library: dict[str, Path]
) -> None:
    put("b", "a")
    entry = serve().entry("plate")
    newest = library["b"].stem
    assert (entry.version, entry.by, entry.problem) == (newest, "jigsight", None)
    assert list(entry.versions) == [library["a"].stem, newest]
    (activation,) = store.history("plate")
    assert (activation.version, activation.activated_at) == (newest, entry.since)
    serve()
    assert len(store.history("plate")) == 1


def test_of_two_that_start_at_once_the_first_decides(
    put: Put, folder: Path, store: Artifacts, library: dict[str, Path]
) -> None:
    put("a", "b")
    one = open_registry(folder, device=torch.device("cpu"), artifacts=store)
    change = Change("jigsight", "activate", "category plate")
    kept = store.activate_first("plate", library["a"].stem, change=change)
    assert kept.version == one.entry("plate").version == library["b"].stem
    assert len(store.history("plate")) == 1


def test_a_newer_version_is_noticed_and_waits(put: Put, serve: Serve, library: dict[str, Path]) -> None:
    put("a")
    registry = serve()
    put("b", "ring")
    registry.look()
    entry = registry.entry("plate")
    assert (entry.version, entry.newer) == (library["a"].stem, (library["b"].stem,))
    assert registry.entry("ring").version == library["ring"].stem
    assert registry.loaded("plate") is registry.artifact("plate")
    assert serve().entry("plate").version == library["a"].stem


def test_the_newest_file_that_can_be_loaded_is_the_first(
    put: Put, folder: Path, serve: Serve, library: dict[str, Path], forge_odd: Callable[[Path], Path]
) -> None:
    odd = forge_odd(put("a"))  # its hash is right, its numbers are not
    registry = serve()
    assert registry.entry("plate").version == library["a"].stem
    assert [(each.file, "not finite" in each.reason) for each in registry.refused] == [(f"plate/{odd.name}", True)]


def test_unknown_categories_are_told(put: Put, serve: Serve) -> None:
    registry = serve()
    with pytest.raises(UnknownCategory, match="jigsight train"):
        registry.artifact("plate")
    assert registry.loaded("plate") is None
    put("a")
    registry.look()
    with pytest.raises(UnknownCategory, match="Served are: plate"):
        registry.entry("ring")


@pytest.mark.parametrize("fate", ["deleted", "garbage", "cut off"])
def test_a_loaded_artifact_outlives_its_file_and_says_so(put: Put, serve: Serve, fate: str) -> None:
    path = put("a")
    registry = serve()
    artifact = registry.artifact("plate")
    spoil(path, fate)
    registry.look()
    assert registry.loaded("plate") is artifact
    assert registry.artifact("plate") is artifact
    assert f"{path.stem} of category 'plate' is the active one" in str(registry.problem("plate"))
    assert [each.file for each in registry.refused] == [f"plate/{path.name}"]
    assert registry.ailments() == []
    put("a")
    registry.look()
    assert registry.problem("plate") is None
    assert registry.refused == ()


@pytest.mark.parametrize("fate", ["deleted", "garbage", "cut off"])
def test_what_is_not_loaded_is_unavailable_until_its_file_is_back(
    put: Put, serve: Serve, library: dict[str, Path], fate: str
) -> None:
    path = put("a")
    serve()
    put("b", "ring")
    spoil(path, fate)
    registry = serve()
    with pytest.raises(ArtifactUnavailable, match="cannot be loaded") as caught:
        registry.artifact("plate")
    assert library["b"].stem in str(caught.value)  # told, and not taken
    assert registry.loaded("plate") is None
    assert registry.artifact("ring").version == library["ring"].stem
    (ailment,) = registry.ailments()
    assert ailment.startswith("category plate: ")
    put("a")
    registry.look()
    assert registry.artifact("plate").version == path.stem
    assert registry.ailments() == []


def test_a_file_that_spoils_between_two_looks_is_found_when_it_is_loaded(put: Put, serve: Serve) -> None:
    path = put("a")
    serve()
    registry = serve()  # verified, and not loaded
    assert registry.loaded("plate") is None
    before = path.stat()
    content = path.read_bytes()
    spoil(path, "garbage")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if nothing had happened
    with pytest.raises(ArtifactUnavailable, match="not a safetensors file"):
        registry.artifact("plate")
    assert len(registry.ailments()) == 1
    registry.look()
    assert len(registry.ailments()) == 1
    path.write_bytes(content)
    registry.look()
    assert registry.ailments() == []
    assert registry.artifact("plate").version == path.stem


def test_a_full_device_is_tried_again_at_each_look(
    put: Put, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put("a")
    serve()
    registry = serve()

    def full(*_: object) -> None:
        raise ArtifactTooLarge("it does not fit on cuda.")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_move", full)
        for _ in range(2):
            with pytest.raises(ArtifactUnavailable, match="does not fit"):
                registry.artifact("plate")
            registry.look()
        assert registry.ailments()
        assert registry.refused == ()  # no fault of the file
    registry.look()
    assert registry.ailments() == []
    assert registry.loaded("plate") is not None


def test_another_process_may_activate_and_change_thresholds(
    put: Put, serve: Serve, author: Author, library: dict[str, Path]
) -> None:
    put("a", "b")
    here, there = serve(), serve()
    version = library["a"].stem
    changes.activate(there, "plate", version, author=author)
    changes.set_threshold(there, "plate", 3.5, author=author)
    assert here.entry("plate").version != version
    here.look()
    assert (here.entry("plate").version, here.entry("plate").by) == (version, "ann")
    assert here.threshold("plate", version) == 3.5
    assert here.artifact("plate").version == version
    assert [key[1] for key in here.snapshot().loaded] == [version]  # the other has gone


def test_without_the_database_nothing_changes(
    put: Put,
    serve: Serve,
    folder: Path,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    library: dict[str, Path],
) -> None:
    put("a")
    registry = serve()
    gone = create_engine("postgresql+psycopg://postgres@/gone", connect_args={"host": str(folder / "nowhere")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "engine", gone)
        put("b", "ring")
        for _ in range(3):
            registry.look()
    assert list(registry.entries) == ["plate"]
    assert list(registry.entry("plate").versions) == [library["a"].stem]
    assert caplog.text.count("the database does not answer") == 1
    registry.look()
    assert list(registry.entries) == ["plate", "ring"]


def test_preloading_stops_where_the_budget_is_full(put: Put, folder: Path, store: Artifacts, serve: Serve) -> None:
    put("a", "ring")
    serve()
    free = open_registry(folder, device=torch.device("cpu"), artifacts=store)
    assert free.snapshot().loaded == {}
    free.preload()
    both = free.snapshot()
    assert set(both.loaded) == {(category, version) for category, version in both.active.items()}
    tight = open_registry(folder, device=torch.device("cpu"), artifacts=store, budget=both.bytes - 1)
    tight.preload()
    assert len(tight.snapshot().loaded) == 1
    assert tight.snapshot().bytes < both.bytes
    assert tight.ailments() == []
    for category in ("plate", "ring", "plate"):
        assert tight.artifact(category).manifest.category == category


def spoil(path: Path, fate: str) -> None:
    if fate == "deleted":
        path.unlink()
    elif fate == "garbage":
        with path.open("r+b") as file:  # in place, as `cp` does it
            file.write(b"\xff" * path.stat().st_size)
    else:
        os.truncate(path, path.stat().st_size // 2)


def test_a_manifest_that_cannot_be_read_is_its_categorys_problem_alone(
    put: Put, serve: Serve, database: Database, author: Author
) -> None:
    path = put("a")
    put("ring")
    serve()
    path.unlink()
    with database.transaction() as connection:
        of_it = ARTIFACTS.c.version == path.stem
        connection.execute(update(ARTIFACTS).where(of_it).values(manifest='{"format":1}'))
    registry = serve()
    assert registry.entry("plate").manifest is None
    assert "does not read" in str(registry.problem("plate"))
    for judge in (
        lambda: registry.artifact("plate"),
        lambda: changes.set_threshold(registry, "plate", 1.0, author=author),
        lambda: changes.reset_threshold(registry, "plate", author=author),
    ):
        with pytest.raises(ArtifactUnavailable):
            judge()
    assert registry.artifact("ring").manifest.category == "ring"
    put("a")
    registry.look()
    assert registry.problem("plate") is None
    assert registry.artifact("plate").version == path.stem


def test_a_look_that_fails_is_an_ailment_until_one_succeeds(
    put: Put, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a")
    registry = serve()
    put("ring")

    def fail(_: Path) -> None:
        raise RuntimeError("nobody thought of it")

    with monkeypatch.context() as patch:
        patch.setattr(scan, "verify", fail)
        with pytest.raises(RuntimeError):
            registry.look()
        assert len(registry.ailments()) == 1
        assert registry.loaded("plate") is not None
    registry.look()
    assert registry.ailments() == []


def test_a_failed_one_for_which_the_budget_has_no_room_is_loaded_when_it_is_used(
    put: Put, serve: Serve, folder: Path, store: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a", "ring")
    serve()
    registry = open_registry(folder, device=torch.device("cpu"), artifacts=store, budget=1)

    def full(*_: object) -> None:
        raise ArtifactTooLarge("it does not fit on cuda.")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_move", full)
        with pytest.raises(ArtifactUnavailable):
            registry.artifact("plate")
    ring = registry.artifact("ring")
    registry.look()
    assert registry.loaded("ring") is ring
    assert registry.artifact("plate").manifest.category == "plate"
