"""A whole benchmark of a tiny category, in a process of its own as always."""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from rich.console import Console

from models.errors import WeightsError
from training.benchmark.cells import Cell, cell_path, read_cell
from training.benchmark.method import chosen_methods
from training.benchmark.report import write_report
from training.benchmark.request import BenchmarkRequest
from training.benchmark.run import run_benchmark
from training.samples import write_category


@dataclass
class Told:
    """What `after_each` was given: how many cells, each time."""

    counts: list[int] = field(default_factory=list)

    def __call__(self, cells: Sequence[Cell]) -> None:
        self.counts.append(len(cells))


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Flanges; one of the training pictures is damaged."""
    good = write_category(tmp_path / "parts", "flange", train=8, test_good=1, test_defective=1, size=64) / "train/good"
    shutil.copy(good / "000.png", tmp_path / "whole.png")
    (good / "000.png").write_bytes(b"not a picture")
    return tmp_path / "parts"


@pytest.fixture
def request_(ask: Callable[..., BenchmarkRequest], parts: Path) -> BenchmarkRequest:
    return ask(parts, chosen_methods(["padim"], peers=False))


@pytest.mark.slow
def test_a_benchmark_measures_what_is_missing_and_nothing_twice(request_: BenchmarkRequest, tmp_path: Path) -> None:
    console, told = Console(quiet=True), Told()
    (failed,) = run_benchmark(request_, console, after_each=told)
    assert failed.status == "failed"
    assert "000.png" in str(failed.error)

    shutil.copy(tmp_path / "whole.png", request_.data / "flange/train/good/000.png")
    (cell,) = run_benchmark(request_, console, after_each=told)
    figures = cell.figures
    assert figures is not None, cell.error
    assert (cell.kind, cell.stages, figures.threshold_rule) == ("object", (), "conformal")
    assert figures.image_auroc is not None
    assert figures.training_seconds > 0.1
    assert figures.milliseconds > 0.1
    assert figures.artifact_bytes > 3136 * 100 * 4
    assert figures.peak_bytes > 100_000_000
    assert not list(request_.output.rglob("*.safetensors"))

    file = cell_path(request_.output, "flange", "padim")
    written = file.stat().st_mtime_ns
    assert run_benchmark(request_, console, after_each=told) == [cell]
    assert file.stat().st_mtime_ns == written
    assert told.counts == [1, 1, 1, 1, 1]  # after each cell that was measured, and at the end

    page = write_report(request_, [cell])
    assert "1 of 1 cells measured, 0 failed" in page.read_text()
    names = {path.name for path in request_.output.glob("benchmark.*")}
    assert names == {"benchmark.md", "benchmark.csv", "benchmark.png"}


def test_weights_that_cannot_be_had_end_the_run_before_it_begins(request_: BenchmarkRequest) -> None:
    with pytest.raises(WeightsError, match="nowhere"):
        run_benchmark(replace(request_, weights="nowhere.pth"), Console(quiet=True), after_each=Told())
    assert not request_.output.exists()


def test_a_process_that_dies_loses_its_cell_alone(
    request_: BenchmarkRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    two = replace(request_, methods=chosen_methods(["padim", "default"], peers=False))
    cells = run_benchmark(two, Console(quiet=True), after_each=Told())
    assert [cell.method for cell in cells] == ["padim", "default"]
    for cell in cells:
        assert "status -9" in str(cell.error)
        assert "memory" in str(cell.error)
        assert read_cell(cell_path(two.output, "flange", cell.method)) == cell
