"""The disk of the data folder is full: a small tmpfs and a file that fills it. Needs root, for mounting."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytestmark = pytest.mark.slow

Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]
POST = "/v1/categories/plate/inspections"
MIB = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("kept", ["all", "none"])  # the picture's place is full first, or the database
def test_a_full_disk_is_said_and_recovered_from(
    kept: str,
    serving: Serving,
    cameras: Callable[..., Any],
    artifact_path: Path,
    disk: Path,
    until: Callable[..., None],
) -> None:
    data, ballast = disk / "data", disk / "ballast"
    line = cameras(name="disk", count=4)
    limits = {"JIGSIGHT_KEEP_IMAGES": kept, "JIGSIGHT_MAX_BODY_BYTES": str(MIB)}
    with (
        serving(artifact_path.parent.parent, data, **limits) as (_, address),
        httpx2.Client(base_url=address, timeout=60) as client,
    ):
        with line.sending(address):
            assert line.first.wait(30)
            _fill(ballast)
            until(lambda: len(line.refused) > 20, seconds=30)
            answer = client.get("/v2/health/ready")
            assert answer.status_code == 503
            assert "MiB are free" in answer.json()["detail"]
            _fill(ballast)
            known = next(iter(line.answered.values()))["links"]["self"]
            assert client.get(known).status_code == 200  # what can be done is done
            ballast.unlink()
            until(lambda: client.get("/v2/health/ready").status_code == 200, seconds=5)
            before = len(line.answered)
            until(lambda: len(line.answered) > before + 20, seconds=10)
        for refusal in line.refused:
            assert refusal.status_code == 503
            assert "verdict" not in refusal.json()
            assert "full" in refusal.json()["detail"] or "No space left" in refusal.json()["detail"]
        assert not line.wrongly_passed
        _check_nothing_is_half_stored(client, line)


def _fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while file.write(os.urandom(1) * size):
                    pass
            except OSError:
                continue


def _check_nothing_is_half_stored(client: httpx2.Client, line: Any) -> None:
    for inspection in line.answered.values():
        assert client.get(inspection["links"]["self"]).json() == inspection
        assert client.get(inspection["links"]["heatmap"], params={"style": "heat"}).status_code == 200
    for part in [part for part in line.sent if part.key not in line.answered][-30:]:
        first, again = part.send(client), part.send(client)
        assert (first.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
        assert first.json() == again.json()
        assert len(client.get(f"/v1/parts/{part.key}").json()["inspections"]) == 1
