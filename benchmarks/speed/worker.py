"""A contestant's process as the command sees it: asked in JSON lines, watched, and ended if it takes too much.

A thread watches each worker while it is asked, and seldom: what computes on all cores waits for the one that is taken
away. A worker whose resident memory exceeds its limit is killed, and so is a large one when the machine itself runs
out: what a benchmark must not do is take the machine down. Processes that a worker starts, such as those that read
pictures for a fit, do not count, as most of their memory is shared with it; they end with it.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_EVERY: Final = 0.2  # seconds between two looks
_RESERVE: Final = 10**9  # bytes that the machine keeps
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class WorkerFailed(Exception):
    """A contestant did not answer, or answered with an error; the message says which, in one line."""


class Worker:
    """A running script. Not for several threads."""

    def __init__(
        self,
        command: list[str],
        *,
        threads: int,
        folder: Path,
        limit_bytes: float,
        variables: Mapping[str, str] | None = None,
        patience: float = 3600.0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._said = folder / "worker.log"
        self._limit, self._patience = limit_bytes, patience
        self.highest, self._ended_for, self._deadline = 0, "", float("inf")
        with self._said.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=os.environ | dict.fromkeys(_THREADS, str(threads)) | dict(variables or {}),
                text=True,
                process_group=0,  # with the processes that it starts: one that is left would keep its pipes open
            )
        self._asked = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one request. Raises WorkerFailed; a worker that has died stays so."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._deadline = time.monotonic() + self._patience
        self._asked.set()
        try:
            self._process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (BrokenPipeError, OSError):
            line = ""
        self._deadline = float("inf")
        if not line:
            raise WorkerFailed(self._epitaph())
        self._asked.clear()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def resident(self) -> int:
        """Its resident memory now, in bytes."""
        return resident_bytes(self._process.pid)

    def close(self) -> None:
        """End the process; it has nothing to keep."""
        self._kill()
        self._process.wait()
        self._asked.set()
        self._watching.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self) -> None:
        while self._asked.wait() and self._process.poll() is None:
            taken = resident_bytes(self._process.pid)
            self.highest = max(self.highest, taken)
            if taken > self._limit:
                self._end(f"killed at {taken / 1e9:.1f} GB of memory, its limit (--memory-gb)")
            elif available_bytes() < _RESERVE and taken > _RESERVE:
                self._end(f"killed at {taken / 1e9:.1f} GB of memory, as the machine had none left")
            elif time.monotonic() > self._deadline:
                self._end(f"killed after {self._patience:.0f} s without an answer")
            time.sleep(_EVERY)

    def _end(self, reason: str) -> None:
        self._ended_for = self._ended_for or reason
        self._kill()

    def _kill(self) -> None:
        if self._process.poll() is not None:
            return  # its number may be another's by now
        if hasattr(os, "killpg"):
            os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()

    def _epitaph(self) -> str:
        code = self._process.wait()
        self._watching.join()
        if self._ended_for:
            return self._ended_for
        if code < 0:
            return f"killed by {signal.Signals(-code).name} at {self.highest / 1e9:.1f} GB of memory"
        lines = [line for line in self._said.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return f"ended with exit code {code}: {lines[-1][:300] if lines else 'it said nothing'}"


def resident_bytes(process: int) -> int:
    """Resident memory of a process; 0 if that cannot be told."""
    return _kilobytes(Path(f"/proc/{process}/status"), "VmRSS:") or 0


def available_bytes() -> float:
    """What the machine could still give; infinite if that cannot be told."""
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable:") or float("inf")


def _kilobytes(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
