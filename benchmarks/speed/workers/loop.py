"""A worker's side of the conversation: one JSON object a line comes in, one goes out, until the input ends.

Standard library alone, as it runs in every contestant's environment. What libraries print goes to stderr: the answers
have the process' stdout for themselves. Nothing is computed between two requests, so that whoever is asked has the
machine for itself.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

WARM_MS = 250.0
Answer = dict[str, Any]
Handler = Callable[..., Mapping[str, Any]]
Run = Callable[[], object]
Stopwatch = Callable[[Run], float]  # runs it once -> milliseconds


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer each request {"do": name, ...} by what the handler of that name returns, or by {"error": reason}."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = dict(handlers[request.pop("do")](**request))
        except Exception as error:
            said = " ".join(str(error).split())
            answer = {"error": f"{type(error).__name__}: {said[:300]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def wall_clock(run: Run) -> float:
    """Milliseconds of one run that has ended when it returns."""
    begun = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - begun)


def turn(
    run: Run, *, passes: int, enough_ms: float, warm_ms: float = WARM_MS, stopwatch: Stopwatch = wall_clock
) -> list[float]:
    """Runs that do not count, for `warm_ms` but at least one, then `passes` that do, fewer if they take `enough_ms`.

    The first ones fetch into the caches again what other contestants have driven out, and wake the threads: right
    after a pause several of them may be on one core, and then wait for one another at every layer.
    """
    begun = time.perf_counter()
    run()
    while 1000 * (time.perf_counter() - begun) < warm_ms:
        run()
    spent: list[float] = []
    while len(spent) < passes and (not spent or sum(spent) < enough_ms):
        spent.append(stopwatch(run))
    return spent


class LastCase:
    """What runs the case that was asked last: it is prepared once for all its turns."""

    def __init__(self, prepare: Callable[[str, int], Run]) -> None:
        self._prepare = prepare
        self._asked: tuple[str, int] | None = None

    def run(self, source: str, batch: int) -> Run:
        """The run of that case."""
        if (source, batch) != self._asked:
            self._run, self._asked = self._prepare(source, batch), (source, batch)
        return self._run


class Rounds:
    """Pictures in turn, a batch at a time, over and over: no two batches in a row are the same, if they can differ."""

    def __init__(self, pictures: Sequence[Any], batch: int) -> None:
        self._pictures: Iterator[Any] = cycle(pictures)
        self._batch = batch

    def next(self) -> list[Any]:
        """The next batch."""
        return [next(self._pictures) for _ in range(self._batch)]


def peak_bytes() -> int:
    """The largest resident memory of this process so far.

    Not getrusage's ru_maxrss: on Linux that also counts what the parent had when it forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    import resource  # no such module on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def file_bytes(*paths: Path) -> int:
    """The size of files together."""
    return sum(path.stat().st_size for path in paths)
