"""The demo, whole: it trains, starts a server, speaks HTTP to it, and keeps its promise."""

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from models.errors import JigSightError
from training.demo import run_demo


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_keeps_its_promise(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    printed = io.StringIO()
    assert run_demo(folder, once=True, console=Console(file=printed, width=120))
    assert "Promised" not in printed.getvalue()  # the complaint
    heatmaps = list((folder / "heatmaps").glob("*.png"))
    assert len(heatmaps) == printed.getvalue().count(" │ pass ") + printed.getvalue().count(" │ fail ")
    with Image.open(heatmaps[0]) as heatmap:
        assert heatmap.size == (256, 256)
    assert {path.parent.name for path in (folder / "artifacts").rglob("*.safetensors")} == {"flange", "cloth"}


def test_the_demo_never_deletes_what_it_did_not_make(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    with pytest.raises(JigSightError, match="not empty"):
        run_demo(tmp_path, once=True, console=Console(file=io.StringIO()))
    assert precious.read_text() == "mine"
