"""The command itself, on tiny pictures: real fits, loads and turns, and a peer that cannot be installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from speed.contestants import OURS, OURS_ALONE, bare_name

COMMAND = Path(__file__).parents[3] / "benchmarks" / "speed.py"
TINY = ["--arch", "resnet18", "--image-size", "64", "--images", "12", "--pictures", "2", "--size", "96"]
BRIEF = ["--repeat", "2", "--passes", "1", "--loads", "1", "--threads", "1", "--device", "cpu"]
CASES = ["--batch", "1", "2", "--source", "png", "small"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is looked up in /proc")
def test_a_run_is_whole_though_a_peer_is_not_to_be_had(tmp_path: Path) -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}
    places = ["--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out")]
    command = [sys.executable, str(COMMAND), "--peers", "anomavision", *TINY, *BRIEF, *CASES, *places]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | offline)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "speed.json").read_text())
    assert "could not be installed" in found["absent"]["AnomaVision"]
    assert found["roofline"]["teraflops"]["float32"] > 0
    assert not [each["error"] for each in (*found["fits"], *found["loads"], *found["timings"]) if each["error"]]
    cases = {(each["source"], each["batch"], each["contestant"]) for each in found["timings"]}
    fitted = {fit["contestant"] for fit in found["fits"]}
    assert {OURS, OURS_ALONE, bare_name("float32")} <= fitted
    names = fitted - {OURS_ALONE}
    sources = ("png", "small")
    assert cases == {(source, batch, name) for source in sources for batch in (1, 2) for name in names}
    assert all(len(each["milliseconds"]) == 2 for each in found["timings"])
    assert "| jigsight |" in done.stdout
    assert (tmp_path / "out" / "speed.png").stat().st_size > 0
    # What is kept is the pictures and the environment that was begun, and nothing of the run.
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"linen-96-12-2", "anomavision"}


@pytest.mark.parametrize("wrong", [["--batch", "0"], ["--threads", "0"]])
def test_what_cannot_be_asked_is_refused_before_anything_is_measured(wrong: list[str], tmp_path: Path) -> None:
    command = [sys.executable, str(COMMAND), *wrong, "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert not (tmp_path / "out").exists()
