"""The benchmarks of the service, run briefly: what they find wrong is wrong, however long they run.

JIGSIGHT_SOAK_MINUTES is the length of the soak; a longer one may be held to a smaller slope.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ("--size", "256", "--image-size", "64")
MINUTES = float(os.environ.get("JIGSIGHT_SOAK_MINUTES", "0.5"))
# MB: what a process may still need to settle after the warm-up, however short the run.
SETTLING = 15.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="they look into /proc"),
]


def run(script: str, *options: str, folder: Path) -> tuple[int, str, dict[str, Any]]:
    """Exit code, what was said, and the figures."""
    figures = folder / "figures.json"
    command = [sys.executable, str(BENCHMARKS / script), *options, "--json", str(figures)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert figures.exists(), ended.stderr
    return ended.returncode, ended.stdout + ended.stderr, json.loads(figures.read_text())


def test_overload_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    """Times do not count here, neither p99 nor the rate: other programs may have the cores."""
    untimed = ("--margin", "1000", "--share", "0")
    options = ("--seconds", "10", "--queue-limit", "16", "--pictures", "4", *untimed, *SMALL)
    code, said, figures = run("service_overload.py", *options, folder=tmp_path)
    assert code == 0, said
    assert {each["status"] for each in figures["overloaded"]["refusals"]} == {503}
    assert figures["overloaded"]["accepted"] > 0
    assert figures["normal"]["sent"] == figures["normal"]["accepted"]


@pytest.mark.timeout(240 + 60 * MINUTES)
def test_memory_does_not_grow_under_mixed_load(tmp_path: Path) -> None:
    most = max(1.0, SETTLING / MINUTES)
    options = ("--minutes", str(MINUTES), "--warm-up", "45", "--rate", "80", "--most", str(most))
    code, said, figures = run("service_soak.py", *options, folder=tmp_path)
    assert code == 0, said
    assert figures["done"]["inspect"] > 100 * MINUTES
    assert figures["done"]["activate"] > 0
