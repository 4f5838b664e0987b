"""Artifacts deleted, overwritten in place and flipped in one bit: what is loaded judges on, the rest says why not."""

import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import numpy as np
import pytest

pytestmark = pytest.mark.slow

Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]
Picture = Callable[[int], bytes]
WAYS = ("deleted", "garbage", "flipped")


@pytest.fixture
def artifacts(make: Callable[..., Path], artifact_path: Path, tmp_path: Path) -> dict[str, Path]:
    """A category for each way to damage its file, and `plate`, which is left alone."""
    files = {way: make(tmp_path / "artifacts", category=way) for way in WAYS}
    whole = tmp_path / "artifacts" / "plate" / artifact_path.name
    whole.parent.mkdir()
    shutil.copy(artifact_path, whole)
    return files


def test_damaged_files_never_judge_and_are_seen_to_be_back(
    artifacts: dict[str, Path],
    serving: Serving,
    good: Picture,
    bad: Picture,
    tmp_path: Path,
    until: Callable[..., None],
) -> None:
    whole = {way: path.read_bytes() for way, path in artifacts.items()}
    options = {"JIGSIGHT_PRELOAD": "true", "JIGSIGHT_SCAN_SECONDS": "0.2"}
    folder = tmp_path / "artifacts"
    with serving(folder, tmp_path / "data", **options) as (process, address):
        for way, path in artifacts.items():
            _damage(path, way)
        with httpx2.Client(base_url=address, timeout=60) as client:
            until(lambda: _problems(client) == set(WAYS), seconds=20)
            for category in (*WAYS, "plate"):
                assert _verdict(client, category, good(1)) == "pass"
                assert _verdict(client, category, bad(1)) == "fail"
            assert client.get("/v2/health/ready").status_code == 200
        process.kill()
    with serving(folder, tmp_path / "data", **options) as (_, address), httpx2.Client(base_url=address) as client:
        assert client.get("/v2/health/ready").status_code == 503
        for way in WAYS:
            for picture in (good(1), bad(1)):
                answer = client.post(f"/v1/categories/{way}/inspections", content=picture)
                assert answer.status_code == 503
                assert "Put its file back" in answer.json()["detail"]
                assert "verdict" not in answer.json()
        assert _verdict(client, "plate", good(1)) == "pass"
        assert _verdict(client, "plate", bad(1)) == "fail"
        for way, path in artifacts.items():
            path.write_bytes(whole[way])
        until(lambda: client.get("/v2/health/ready").status_code == 200, seconds=20)
        for way in WAYS:
            assert _verdict(client, way, good(1)) == "pass"
            assert _verdict(client, way, bad(1)) == "fail"


def _damage(path: Path, way: str) -> None:
    """In place: who has the file mapped sees it."""
    content = bytearray(path.read_bytes())
    if way == "deleted":
        path.unlink()
        return
    if way == "garbage":
        content = bytearray(np.random.default_rng(7).bytes(len(content) // 2))
    else:
        content[len(content) * 3 // 4] ^= 0x40
    path.write_bytes(content)


def _problems(client: httpx2.Client) -> set[str]:
    found = client.get("/v1/categories").json()
    return {each["file"].split("/")[0] for each in found["refused"]}


def _verdict(client: httpx2.Client, category: str, picture: bytes) -> str:
    answer = client.post(f"/v1/categories/{category}/inspections", content=picture)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["verdict"])
