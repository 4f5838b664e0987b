"""The demo's service, as the demo uses it: a real one, over a tiny artifact."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from models.errors import JigSightError
from training.demo_server import serving


@pytest.mark.slow
def test_a_served_picture_has_a_verdict_and_a_heatmap(
    tmp_path: Path, make: Callable[..., Path], bad: Callable[[int], bytes]
) -> None:
    make(tmp_path / "artifacts")
    picture, nonsense = tmp_path / "part.png", tmp_path / "nonsense.png"
    picture.write_bytes(bad(1))
    nonsense.write_bytes(b"nonsense")
    with serving(tmp_path, Console(file=io.StringIO())) as server:
        inspection, heatmap = server.inspect("plate", picture, serial="part 1/2 & more")
        assert (inspection["verdict"], inspection["serial"]) == ("fail", "part 1/2 & more")
        with Image.open(io.BytesIO(heatmap)) as drawn:
            assert (drawn.format, drawn.size) == ("PNG", (128, 96))
        with pytest.raises(JigSightError, match=r"nonsense\.png was not judged: .*These 8 bytes"):
            server.inspect("plate", nonsense, serial="0")
        assert server.process.poll() is None
    assert server.process.poll() is not None


@pytest.mark.slow
def test_a_service_that_does_not_start_says_where_its_log_is(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("not a folder")
    with (
        pytest.raises(JigSightError, match=r"ended with status [1-9].*server\.log"),
        serving(tmp_path, Console(file=io.StringIO())),
    ):
        pytest.fail("it is not up")
