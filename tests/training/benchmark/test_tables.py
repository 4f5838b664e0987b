import csv
import io
from collections.abc import Callable

import pytest

from training.benchmark.cells import Cell
from training.benchmark.means import by_kind, mean
from training.benchmark.tables import csv_text, markdown

Make = Callable[..., Cell]


@pytest.fixture
def cells(cell: Make) -> list[Cell]:
    return [
        cell("carpet", "padim", image_auroc=0.9, pixel_auroc=0.8),
        cell("grid", "padim", image_auroc=0.7, pixel_auroc=None),
        cell("screw", "padim", image_auroc=0.5, pixel_auroc=0.6),
        cell("screw", "memory_bank", error="no room | left"),
    ]


def document(cells: list[Cell], *, arch: str = "resnet18") -> str:
    return markdown(
        cells,
        categories=["carpet", "grid", "screw"],
        methods=["padim", "memory_bank"],
        circumstances=["here"],
        arch=arch,
    )


def test_rows_are_categories_by_kind_and_their_averages(cells: list[Cell]) -> None:
    table = document(cells).partition("## Table 1")[2].partition("## Table 2")[0]
    assert [line for line in table.splitlines() if line.startswith("|")] == [
        "| category | padim | memory_bank |",
        "| --- | ---: | ---: |",
        "| carpet | 0.9000 / 0.8000 |  |",
        "| grid | 0.7000 / - |  |",
        "| **mean of textures** | 0.8000 / 0.8000 (1 of 2) |  |",
        "| screw | 0.5000 / 0.6000 | failed |",
        "| **mean of objects** | 0.5000 / 0.6000 |  |",
        "| **mean of all** | 0.7000 / 0.7000 (2 of 3) |  |",
    ]


def test_all_figures_have_their_units(cells: list[Cell]) -> None:
    row = "| padim | 0.7000 | 0.7000 (2 of 3) | 0.8500 | 5.0% | 20.0% | 60 | 20.0 | 10.0 | 1500 |"
    assert row in document(cells).splitlines()


def test_failures_are_told(cells: list[Cell]) -> None:
    assert "- screw, memory_bank: no room | left" in document(cells).splitlines()
    assert "## Failed" not in document(cells[:3])


def test_published_figures_stand_only_beside_their_own_architecture(cells: list[Cell]) -> None:
    assert ".845" not in document(cells)
    there = document(cells, arch="wide_resnet50_2")
    row = "| padim | 0.7000 (3 of 15) / 0.7000 (2 of 15) | PaDiM | 0.950 / 0.979 | 0.5000 / 0.6000 | 0.845 / 0.988 |"
    assert row in there.splitlines()
    assert "Not measured here" in there


def test_published_figures_are_beside_means_over_mvtecs_own_categories(cell: Make) -> None:
    cells = [cell("screw", "padim", image_auroc=0.5, pixel_auroc=0.6), cell("nut", "padim", image_auroc=0.9)]
    there = markdown(cells, categories=["nut"], methods=["padim"], circumstances=["here"], arch="wide_resnet50_2")
    assert "| padim | 0.5000 / 0.6000 (1 of 15) | PaDiM |" in there.replace("0.5000 (1 of 15) / ", "0.5000 / ")


def test_the_csv_has_a_row_per_cell(cells: list[Cell]) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(cells))))
    assert [(row["category"], row["method"], row["status"], row["image_auroc"]) for row in rows] == [
        ("carpet", "padim", "done", "0.9"),
        ("grid", "padim", "done", "0.7"),
        ("screw", "padim", "done", "0.5"),
        ("screw", "memory_bank", "failed", ""),
    ]
    assert rows[3]["error"] == "no room | left"


def test_kinds_are_mvtec_ads_by_name_and_others_as_trained(cell: Make) -> None:
    cells = [cell("grid", "padim", kind="object"), cell("cloth", "padim", kind="texture"), cell("cloth", "seed")]
    assert by_kind(["cloth", "grid", "nut"], cells) == {"texture": ("cloth", "grid"), "unknown": ("nut",)}


def test_there_is_no_average_of_nothing(cell: Make) -> None:
    assert mean([cell("grid", "padim", aupro=None)], ["grid"], "padim", "aupro") is None
