import sys
from pathlib import Path

import pytest
from rich.console import Console

from models.errors import JigSightError
from training.benchmark.peer_environment import REQUIREMENT, peer_environment


def test_an_environment_that_is_ready_is_used_as_it_is(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    (tmp_path / "jigsight-peers.txt").write_text(REQUIREMENT + "\n")
    assert peer_environment(tmp_path, Console(quiet=True)) == python


@pytest.mark.slow
def test_without_internet_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    folder = tmp_path / "venv"
    with pytest.raises(JigSightError, match=r"anomalib==2\.7\.0.*Without internet.*--peers-venv"):
        peer_environment(folder, Console(quiet=True))
    assert not (folder / "jigsight-peers.txt").exists()  # so that the next time begins anew
