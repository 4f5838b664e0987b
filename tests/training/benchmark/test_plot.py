from collections.abc import Callable
from pathlib import Path

from training.benchmark.cells import Cell
from training.benchmark.plot import draw
from training.picture_files import read_image


def test_the_picture_is_there_whatever_was_measured(cell: Callable[..., Cell], tmp_path: Path) -> None:
    measured = [cell("grid", "padim"), cell("wood", "padim", image_auroc=0.5), cell("grid", "seed", error="no disk")]
    pictures = []
    for count, cells in enumerate((measured, [])):
        path = tmp_path / f"{count}.png"
        draw(cells, path, categories=["grid", "wood"], methods=["padim", "seed"])
        pictures.append(read_image(path))
    full, empty = pictures
    assert full.shape[1] > 1000
    assert (full != 255).sum() > (empty != 255).sum()
    assert len(list(tmp_path.iterdir())) == 2
