"""Ctrl-C during a run."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from aiohttp import web

# Whoever runs the tests in the background may ignore SIGINT, and so would the command.
COMMAND = (
    "import signal, typer; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from service import load_command as c; app = typer.Typer(); c.register(app); app()"
)


def test_what_was_measured_is_printed(
    answering: Callable[..., AbstractContextManager[str]], tmp_path: Path, good: Callable[[int], bytes]
) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(good(1))
    answered = 0
    enough = threading.Event()

    async def judge(_: web.Request) -> web.Response:
        nonlocal answered
        answered += 1
        if answered == 10:
            enough.set()
        return web.json_response({"verdict": "pass"}, status=201)

    with answering(judge) as address:
        arguments = [address, "--category", "plate", "--images", str(picture), "--rate", "50", "--seconds", "600"]
        command = [sys.executable, "-c", COMMAND, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert enough.wait(60)
                process.send_signal(signal.SIGINT)
                said, complaint = process.communicate(timeout=30)
            finally:
                process.kill()
    assert process.returncode == 130, complaint
    assert "50/s planned" in said
    assert "Traceback" not in complaint
