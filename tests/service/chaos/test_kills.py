"""kill -9 at random moments under load: what was answered is there, and a request sent again has one inspection.

JIGSIGHT_KILLS says how many kills (1 a database otherwise); with `-s` the figures are printed.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select

from service.storage.database import open_database
from service.storage.tables import INSPECTIONS, SCORE_MAPS

pytestmark = pytest.mark.slow

Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]
KILLS = int(os.environ.get("JIGSIGHT_KILLS", "1"))
LATEST = 1.5  # seconds after the first answer


@pytest.mark.timeout(120 + 30 * KILLS)
def test_what_was_answered_outlives_kill_9(
    serving: Serving, cameras: Callable[..., Any], artifact_path: Path, tmp_path: Path, database_url: str
) -> None:
    moments = random.Random(20301224)
    answered: dict[str, Mapping[str, Any]] = {}
    replayed = unanswered = 0
    line = None
    for kill in range(KILLS + 1):
        with serving(
            artifact_path.parent.parent, tmp_path, JIGSIGHT_DATABASE_URL=database_url, JIGSIGHT_PRELOAD="true"
        ) as (process, address):
            if line is not None:
                _check_answered(address, line.answered)
                found = _send_again(address, line)
                replayed += found
                unanswered += len(line.sent) - len(line.answered)
            if kill == KILLS:
                _check_answered(address, answered)
                break
            line = cameras(name=f"kill-{kill}")
            with line.sending(address):
                assert line.first.wait(30)
                time.sleep(moments.uniform(0, LATEST))
                process.kill()
            process.wait()
            assert not line.refused
            assert not line.wrongly_passed
            answered |= line.answered
    counts = _inspections_by_key(database_url)
    assert answered.keys() <= counts.keys()
    assert set(counts.values()) == {1}
    sys.stdout.write(
        f"\n{database_url.partition(':')[0]}: {KILLS} kills, {len(answered)} answered and all found; {unanswered} "
        f"unanswered, of which {replayed} had been stored; {len(counts)} keys with one inspection each\n"
    )


def _check_answered(address: str, answered: Mapping[str, Mapping[str, Any]]) -> None:
    with httpx2.Client(base_url=address) as client:
        for inspection in answered.values():
            assert client.get(inspection["links"]["self"]).json() == inspection
            assert client.get(inspection["links"]["heatmap"]).status_code == 200


def _send_again(address: str, line: Any) -> int:
    """Send everything again; how many that had not been answered had been stored all the same."""
    stored = 0
    with httpx2.Client(base_url=address) as client:
        for part in line.sent:
            answer = part.send(client)
            assert answer.status_code == 201
            was_replayed = answer.headers.get("Idempotency-Replayed") == "true"
            assert answer.json()["verdict"] == ("fail" if part.defective else "pass")
            if part.key in line.answered:
                assert was_replayed
                assert answer.json() == line.answered[part.key]
            else:
                stored += was_replayed
            again = part.send(client)
            assert again.headers["Idempotency-Replayed"] == "true"
            assert again.json() == answer.json()
    return stored


def _inspections_by_key(url: str) -> dict[str, int]:
    with closing(open_database(url)) as database, database.reading() as connection:
        key = INSPECTIONS.c.idempotency_key
        rows = connection.execute(select(key, func.count()).group_by(key)).all()
        maps = connection.scalar(select(func.count()).select_from(SCORE_MAPS))
    assert maps == sum(count for _, count in rows)
    return {str(key): int(count) for key, count in rows}
