"""The demo's own service: a process of its own, started as a user would start it, and spoken to over HTTP alone."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from models.errors import JigSightError

_PORT = 8000
_START_SECONDS = 120.0

# Verdicts are asked for on this machine, whatever proxy the environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Server:
    """A service that is up: where it listens, and the process that it is."""

    address: str
    process: subprocess.Popen[bytes]

    def inspect(self, category: str, picture: Path, *, serial: str) -> tuple[dict[str, Any], bytes]:
        """The inspection of a PNG file as the API tells it, and its heatmap, a PNG too. JigSightError if refused."""
        query = urllib.parse.urlencode({"serial": serial, "station": "demo"})
        request = urllib.request.Request(
            f"{self.address}/v1/categories/{category}/inspections?{query}",
            data=picture.read_bytes(),
            headers={"Content-Type": "image/png"},
            method="POST",
        )
        try:
            with _opener.open(request, timeout=60) as response:
                inspection = json.load(response)
            heatmap = f"{self.address}/v1/inspections/{inspection['id']}/heatmap?style=overlay"
            with _opener.open(heatmap, timeout=60) as response:
                return inspection, response.read()
        except urllib.error.HTTPError as error:
            raise JigSightError(f"{picture} was not judged: {error.read().decode(errors='replace')}") from error

    def wait(self) -> None:
        """Until Ctrl-C. JigSightError if the process ends by itself."""
        try:
            status = self.process.wait()
        except KeyboardInterrupt:
            return
        raise JigSightError(f"The demo's server has ended by itself, with status {status}. Its log says why.")


@contextmanager
def serving(folder: Path, console: Console) -> Iterator[Server]:
    """`jigsight serve` over the artifacts in the demo's folder, ready; its log and its data lie there too.

    JigSightError if it does not start.
    """
    log = folder / "server.log"
    command = [sys.executable, "-m", "jigsight", "serve", "--artifacts", str(folder / "artifacts")]
    command += ["--data", str(folder / "service"), "--host", "127.0.0.1", "--port", str(_port()), "--device", "cpu"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}  # the log is read while it is written
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            address = _wait_until_ready(process, log)
            console.print(f"The service is up at {address}; its log is {log}.", markup=False, soft_wrap=True)
            yield Server(address, process)
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def _port() -> int:
    """The usual port if nobody has it, else any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", _PORT))
        except OSError:
            return 0
    return _PORT


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address of this very server, from its own log: on a port that we guess another one may answer."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise JigSightError(f"The demo's server ended with status {process.returncode}; its log is {log}.")
        if said := re.search(r"listens on (http://\S+)", log.read_text(encoding="utf-8", errors="replace")):
            with suppress(urllib.error.URLError, OSError), _opener.open(f"{said[1]}/v2/health/ready", timeout=5):
                return said[1]
        time.sleep(0.2)
    raise JigSightError(f"The demo's server was not ready after {_START_SECONDS:.0f} s; its log is {log}.")
