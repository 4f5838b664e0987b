"""Activation, rolling back and thresholds: what is stored, what is refused, what stays as it was."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from models.artifact import Artifact, load
from service.errors import NothingToRollBack, OtherVersionActive, UnknownCategory, UnknownVersion, VersionRefused
from service.registry import changes
from service.registry import memory as memory_module
from service.registry.changes import Author, steps
from service.registry.registry import Registry
from service.storage.artifacts import Artifacts
from service.storage.database import Database
from service.storage.tables import AUDIT

Put = Callable[..., Path]
Serve = Callable[[], Registry]


@pytest.fixture
def registry(put: Put, serve: Serve) -> Registry:
    """`a` judges; `b` and `c` came later."""
    put("a")
    running = serve()
    put("b", "c")
    return running


def test_a_version_is_loaded_and_then_activated(
    registry: Registry, author: Author, database: Database, library: dict[str, Path], serve: Serve
) -> None:
    old = registry.artifact("plate")
    entry = changes.activate(registry, "plate", library["b"].stem, author=author)
    assert (entry.version, entry.by) == (library["b"].stem, "ann")
    now = registry.loaded("plate")
    assert now is not None
    assert now.version == library["b"].stem
    assert old.version == library["a"].stem  # whoever has it goes on with it
    assert serve().entry("plate").since == entry.since
    with database.reading() as connection:
        noted = connection.execute(select(AUDIT).where(AUDIT.c.actor == "ann")).one()
    assert (noted.action, noted.subject, noted.request_id) == ("activate", "category plate", "r1")
    assert noted.detail == {"version": library["b"].stem, "instead_of": library["a"].stem}


def test_activating_the_active_version_changes_nothing(
    registry: Registry, author: Author, store: Artifacts, library: dict[str, Path]
) -> None:
    before = registry.entry("plate").since
    assert changes.activate(registry, "plate", library["a"].stem, author=author).since == before
    assert len(store.history("plate")) == 1


def test_what_cannot_be_activated_leaves_what_is_active(
    registry: Registry,
    author: Author,
    store: Artifacts,
    folder: Path,
    library: dict[str, Path],
    forge_odd: Callable[[Path], Path],
) -> None:
    with pytest.raises(UnknownCategory):
        changes.activate(registry, "nowhere", "0123456789ab", author=author)
    with pytest.raises(UnknownVersion, match=library["b"].stem):
        changes.activate(registry, "plate", "0123456789ab", author=author)
    bad = folder / "plate" / library["b"].name
    bad.write_bytes(bad.read_bytes()[:-9])
    with pytest.raises(VersionRefused, match="truncated"):
        changes.activate(registry, "plate", bad.stem, author=author)
    odd = forge_odd(folder / "plate" / library["a"].name)
    for _ in range(2):
        with pytest.raises(VersionRefused, match="not finite"):
            changes.activate(registry, "plate", odd.stem, author=author)
    assert registry.entry("plate").version == library["a"].stem
    assert registry.artifact("plate").version == library["a"].stem
    assert len(store.history("plate")) == 1


def test_rolling_back_goes_back_step_by_step(
    registry: Registry, author: Author, store: Artifacts, library: dict[str, Path]
) -> None:
    a, b, c = (library[name].stem for name in "abc")
    for version in (b, c):
        changes.activate(registry, "plate", version, author=author)
    assert changes.roll_back(registry, "plate", author=author).version == b
    assert registry.artifact("plate").version == b
    assert changes.roll_back(registry, "plate", author=author).version == a
    with pytest.raises(NothingToRollBack, match=c):
        changes.roll_back(registry, "plate", author=author)
    assert [each.version for each in store.history("plate")] == [a, b, c, b, a]


@pytest.mark.parametrize(
    ("activations", "path"),
    [
        ("a", "a"),
        ("aab", "ab"),
        ("aba", "a"),
        ("abab", "ab"),
        ("abc", "abc"),
        ("abcb", "ab"),
        ("abcba", "a"),
        ("abca", "abca"),
        ("abacb", "acb"),
    ],
)
def test_the_steps_that_led_here(activations: str, path: str) -> None:
    assert "".join(steps(activations)) == path


def test_rolling_back_to_a_file_that_is_gone_is_refused(
    registry: Registry, author: Author, folder: Path, library: dict[str, Path]
) -> None:
    changes.activate(registry, "plate", library["b"].stem, author=author)
    (folder / "plate" / library["a"].name).unlink()
    with pytest.raises(VersionRefused, match=library["a"].stem):
        changes.roll_back(registry, "plate", author=author)
    assert registry.artifact("plate").version == library["b"].stem


def test_a_threshold_by_rate_value_and_back(
    registry: Registry, author: Author, store: Artifacts, database: Database, library: dict[str, Path], serve: Serve
) -> None:
    version = library["a"].stem
    own = registry.artifact("plate").calibration.threshold(0.2)
    assert registry.threshold("plate", version) is None
    entry = changes.set_false_reject_rate(registry, "plate", 0.2, author=author)
    assert entry.threshold is not None
    assert (entry.threshold.value, entry.threshold.false_reject_rate, entry.threshold.set_by) == (own, 0.2, "ann")
    assert registry.threshold("plate", version) == own
    changes.set_threshold(registry, "plate", 3.25, author=author)
    assert registry.threshold("plate", version) == serve().threshold("plate", version) == 3.25
    changes.reset_threshold(registry, "plate", author=author)
    changes.reset_threshold(registry, "plate", author=author)
    assert registry.threshold("plate", version) is serve().threshold("plate", version) is None
    with database.reading() as connection:
        noted = connection.execute(select(AUDIT.c.detail).where(AUDIT.c.action == "threshold")).scalars().all()
    assert [detail["value"] for detail in noted] == [own, 3.25, None]


def test_a_threshold_belongs_to_its_version(registry: Registry, author: Author, library: dict[str, Path]) -> None:
    a, b = library["a"].stem, library["b"].stem
    changes.set_threshold(registry, "plate", 3.25, author=author)
    changes.activate(registry, "plate", b, author=author)
    assert registry.entry("plate").threshold is None
    assert registry.threshold("plate", b) is None
    assert registry.threshold("plate", a) == 3.25  # parts that were taken on before
    assert changes.roll_back(registry, "plate", author=author).threshold is not None


def test_nothing_else_changes_while_a_version_is_being_activated(
    registry: Registry, author: Author, library: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[bool] = []

    def another() -> None:
        free.append(registry.changing.acquire(blocking=False))

    def watched(path: Path) -> Artifact:
        thread = threading.Thread(target=another)
        thread.start()
        thread.join()
        return load(path)

    monkeypatch.setattr(memory_module, "load", watched)
    changes.activate(registry, "plate", library["b"].stem, author=author)
    assert free == [False]


def test_a_threshold_is_for_what_another_process_has_activated(
    registry: Registry, author: Author, library: dict[str, Path], serve: Serve
) -> None:
    a, b, c = (library[name].stem for name in "abc")
    there = serve()
    changes.activate(there, "plate", b, author=author)
    with pytest.raises(OtherVersionActive, match=b):
        changes.set_threshold(registry, "plate", 3.25, version=a, author=author)
    entry, calibration = changes.set_threshold(registry, "plate", 3.25, version=b, author=author)
    assert (entry.version, registry.threshold("plate", b), registry.threshold("plate", a)) == (b, 3.25, None)
    assert calibration is registry.artifact("plate").calibration
    changes.activate(there, "plate", c, author=author)
    assert changes.set_false_reject_rate(registry, "plate", 0.2, author=author).version == c
    changes.activate(there, "plate", b, author=author)
    reset = changes.reset_threshold(registry, "plate", author=author)
    assert (reset.version, registry.threshold("plate", b)) == (b, None)
