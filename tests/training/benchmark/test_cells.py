from collections.abc import Callable
from pathlib import Path

import pytest

from training.benchmark.cells import Cell, cell_path, key_of, read_cell, write_cell


def test_a_cell_is_read_as_it_was_written(cell: Callable[..., Cell], tmp_path: Path) -> None:
    for written in (cell("screw", "padim", aupro=None, kind="object"), cell("screw", "seed", error="no disk")):
        path = cell_path(tmp_path, "screw", written.method)
        write_cell(path, written)
        assert read_cell(path) == written
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["padim.json", "seed.json"]


@pytest.mark.parametrize("content", ["", "{", "{}", '{"category": "screw"}'])
def test_what_is_damaged_counts_as_not_there(tmp_path: Path, content: str) -> None:
    (tmp_path / "padim.json").write_text(content)
    assert read_cell(tmp_path / "padim.json") is None
    assert read_cell(tmp_path / "missing.json") is None


def test_the_status_is_failed_without_figures(cell: Callable[..., Cell]) -> None:
    assert cell("screw", "padim").status == "done"
    assert cell("screw", "padim", error="no disk").status == "failed"


def test_the_key_depends_on_every_value_and_on_no_order() -> None:
    assert key_of({"a": 1, "b": {"c": 2, "d": 3}}) == key_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert key_of({"a": 1, "b": {"c": 2, "d": 3}}) != key_of({"a": 1, "b": {"c": 2, "d": 4}})
