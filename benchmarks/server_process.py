"""A `jigsight serve` process to be measured: started on cores of its own, watched from outside, ended at the end."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

_COMMAND = (sys.executable, "-c", "import jigsight; jigsight.main()", "serve", "--port", "0", "--device", "cpu")


@contextmanager
def serving(
    artifacts: Path, data: Path, *, cores: Collection[int] | None = None, **environment: str
) -> Iterator[tuple[int, str]]:
    """A server: its process and its address. Its log is `data`/server.log. It must end in good order, on SIGTERM."""
    data.mkdir(parents=True, exist_ok=True)
    command = [*_COMMAND, "--artifacts", str(artifacts), "--data", str(data)]
    with (data / "server.log").open("a") as log, on_cores(cores):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | environment)
    assert process.stdout is not None
    try:
        address = _address(process)
        threading.Thread(target=deque, args=(process.stdout, 0), daemon=True).start()  # the pipe must not fill
        yield process.pid, address
        process.send_signal(signal.SIGTERM)
        if process.wait(timeout=60) != 0:
            raise SystemExit(f"the server ended with {process.returncode}: see {data / 'server.log'}")
    finally:
        process.kill()
        process.wait()


def _address(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"listens on (http://\S+)", line):
            return found[1]
    raise SystemExit("the server ended without a word about its address")


@contextmanager
def on_cores(cores: Collection[int] | None) -> Iterator[None]:
    """Processes that are started inside stay on those cores (Linux); anywhere if None."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def resident(process: int) -> float:
    """A process' resident memory in MB (Linux)."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024


def processor_seconds(process: int) -> float:
    """What a process has had of the cores so far, its threads together (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class MemoryWatch:
    """Samples a process' resident memory in a thread, `every` so many seconds, until the block is left."""

    def __init__(self, process: int, *, every: float = 0.5) -> None:
        self.samples: list[tuple[float, float]] = []  # seconds since the block was entered, MB
        self._process = process
        self._every = every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while True:
            self.samples.append((number * self._every, resident(self._process)))
            number += 1
            if self._ended.wait(self._every):
                return


def slope(samples: list[tuple[float, float]], *, since: float) -> float:
    """By least squares, of the samples from `since` seconds on: MB a minute."""
    rest = [sample for sample in samples if sample[0] >= since]
    centre = sum(second for second, _ in rest) / len(rest)
    spread = sum((second - centre) ** 2 for second, _ in rest)
    return 60 * sum((second - centre) * megabytes for second, megabytes in rest) / spread
