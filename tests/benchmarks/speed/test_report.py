import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from speed.goals import goals
from speed.plot import draw
from speed.report import markdown
from speed.results import Results

Make = Callable[..., Results]


def test_every_figure_is_in_the_page(results: Make) -> None:
    run = results(absent={"AnomaVision": "could not be installed: no | internet"})
    page = markdown(run, goals(run))
    assert "| jigsight | 11.0 (10.0 to 12.0) |" in page
    assert "| anomalib Torch | 55.0 (50.0 to 60.0) [5.00× (5.00 to 5.00)] |" in page
    assert "AnomaVision takes no part: could not be installed" in page
    assert "failed: killed at 12.1 GB of memory" in page
    assert "jigsight 428 MB" in page
    assert "anomalib Torch: a loop" in page


def test_tables_have_as_many_cells_in_every_row(results: Make) -> None:
    run = results()
    columns = 0
    for line in markdown(run, goals(run)).splitlines():
        cells = line.count("|")
        assert not cells or not columns or cells == columns, line
        columns = cells


def test_json_has_the_repetitions_and_the_goals(results: Make, tmp_path: Path) -> None:
    run = results()
    run.write(tmp_path / "speed.json", [goal.document() for goal in goals(run)])
    document = json.loads((tmp_path / "speed.json").read_text())
    assert document["timings"][0]["milliseconds"] == [10.0, 12.0, 11.0]
    assert document["goals"][0]["outcome"] == "holds"
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]


def test_the_plot_is_a_picture_and_nothing_without_figures(results: Make, tmp_path: Path) -> None:
    assert draw(results(), tmp_path / "speed.png")
    with Image.open(tmp_path / "speed.png") as picture:
        assert picture.format == "PNG"
    assert not draw(results(timings=[]), tmp_path / "nothing.png")
    assert not (tmp_path / "nothing.png").exists()


def test_figures_of_a_busy_machine_are_called_unreliable(results: Make) -> None:
    run = results()
    assert "busy" not in markdown(run, goals(run))
    run.machine = run.machine | {"busy": True}
    assert "the machine was busy** (3.5 threads" in markdown(run, goals(run))
