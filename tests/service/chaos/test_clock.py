"""The clock of a running service is set back by a month and forward by a year (libfaketime; skipped without it)."""

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.storage.database import open_database

pytestmark = pytest.mark.slow

Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]
Picture = Callable[[int], bytes]
POST = "/v1/categories/plate/inspections"
LEAPS = ("+0", "-30d", "+0", "+365d", "-31d", "+0")


@pytest.fixture
def faketime() -> str:
    """The path of the library."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed (apt-get install faketime)")
    return str(found[0])


def test_a_clock_that_leaps_changes_nothing_but_times(
    serving: Serving,
    artifact_path: Path,
    tmp_path: Path,
    faketime: str,
    issue: Callable[..., str],
    good: Picture,
    bad: Picture,
    until: Callable[..., None],
) -> None:
    setting = tmp_path / "clock"
    setting.write_text("+0")
    with closing(open_database(f"sqlite:///{tmp_path / 'jigsight.sqlite'}")) as database:
        lasting = issue(database, "lasting", "admin")
        brief = issue(database, "brief", "inspect", expires_at=datetime.now(UTC) + timedelta(days=7))
    clock = {
        "LD_PRELOAD": faketime,
        "FAKETIME_TIMESTAMP_FILE": str(setting),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }
    options = {"JIGSIGHT_KEEP_IMAGES_DAYS": "5", "JIGSIGHT_RETENTION_SECONDS": "0.3", "JIGSIGHT_KEYS_SECONDS": "0.3"}
    answers: list[dict[str, Any]] = []
    with (
        serving(artifact_path.parent.parent, tmp_path, **clock, **options) as (_, address),
        httpx2.Client(base_url=address, timeout=60, headers={"X-API-Key": lasting}) as client,
    ):
        for n, leap in enumerate(LEAPS):
            setting.write_text(leap)
            now = datetime.now(UTC) + timedelta(days=int(leap.removesuffix("d")))
            for picture, verdict in ((good(n), "pass"), (bad(n), "fail"), (good(0), "pass")):
                key = {"Idempotency-Key": f"part-{len(answers)}"}
                answer = client.post(POST, content=picture, headers=key)
                assert (answer.status_code, answer.json()["verdict"]) == (201, verdict)
                assert abs(datetime.fromisoformat(answer.json()["created_at"]) - now) < timedelta(minutes=5)
                assert client.post(POST, content=picture, headers=key).json() == answer.json()
                answers.append(answer.json())
            assert client.get("/v2/health/ready").status_code == 200
            expired = client.post(POST, content=good(0), headers={"X-API-Key": brief})
            assert expired.status_code == (401 if leap == "+365d" else 201)
            assert "expired" in expired.json()["detail"] if leap == "+365d" else expired.json()["verdict"] == "pass"
        ids = [each["id"] for each in answers]
        assert len(set(ids)) == len(ids)
        listed = [each["id"] for each in _followed(client) if each["id"] in set(ids)]
        assert listed == ids  # in the order of their commits
        for each in answers:
            assert client.get(each["links"]["self"]).json() == each
            assert client.get(each["links"]["heatmap"]).status_code == 200  # with the picture: none was removed
        assert client.get("/v1/statistics").status_code == 200
        until(lambda: "clock has leapt" in (tmp_path / "server.log").read_text(), seconds=10)


def _followed(client: httpx2.Client) -> list[dict[str, Any]]:
    """Everything, as somebody reads it who asks for what is new again and again."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        wanted = {"order": "asc", "limit": "4"} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/inspections", params=wanted).json()
        found += page["items"]
        if not page["items"]:
            return found
        cursor = page["next"]
