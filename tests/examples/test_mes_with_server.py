"""The MES example against a server process."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import httpx2

Picture = Callable[[int], bytes]


def inspect(server: str, serial: str, picture: bytes) -> str:
    """Have a picture judged; its inspection's id."""
    answer = httpx2.post(f"{server}/v1/categories/plate/inspections", params={"serial": serial}, content=picture)
    assert answer.status_code == 201
    return str(answer.json()["id"])


def test_a_part_s_disposition(server: str, examples: Path, good: Picture, bad: Picture) -> None:
    passing, failing, unseen = (f"mes-{uuid4()}" for _ in range(3))
    inspect(server, passing, good(1))
    inspect(server, failing, bad(1))
    for serial, disposition, code in (
        (passing, f"{passing}: pass", 0),
        (failing, f"{failing}: fail", 1),
        (unseen, "", 2),
    ):
        command = [sys.executable, str(examples / "mes.py"), server, "part", serial]
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert outcome.returncode == code, outcome
        assert disposition in outcome.stdout


def test_it_follows_new_inspections(server: str, examples: Path, good: Picture) -> None:
    serial = f"mes-{uuid4()}"
    expected = [inspect(server, serial, good(seed)) for seed in range(3)]
    command = [sys.executable, str(examples / "mes.py"), server, "follow", "--poll", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found: list[str] = []
        try:
            for seed, line in enumerate(process.stdout):
                if (each := json.loads(line))["serial"] == serial:
                    found.append(each["id"])
                    if len(found) == len(expected):
                        if len(expected) == 8:
                            break
                        expected.append(inspect(server, serial, good(seed)))
        finally:
            process.kill()
    assert found == expected
