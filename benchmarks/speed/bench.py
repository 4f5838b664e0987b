"""The measurements: fits one after the other, loads, and all contestants' turns at one case after the other.

Every contestant is a process of its own with the same number of threads, and only one of them computes at a time. A
turn is some passes; a repetition is one turn of each, so that whatever else the machine does meets all of them. Who
begins changes with each, as who follows a long turn finds other caches and clocks than who follows a short one.
"""

import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from models.allocator import memory_kept
from speed.contestants import OURS, ROOFLINE, Contestant
from speed.pictures import Pictures
from speed.results import Fit, Load, Results, Timing
from speed.worker import Worker, WorkerFailed
from training.progress import Progress

Item = TypeVar("Item")

_SETTLE: Final = 0.05  # seconds: threads that the last one left spinning for more work have gone to sleep by then
_ENOUGH_MS: Final = 600.0  # of passes in a turn


@dataclass(frozen=True)
class Bench:
    """Where and how everything is measured. `pythons` are the environments' interpreters, by name."""

    folder: Path
    pictures: Pictures
    pythons: Mapping[str, Path]
    device: str
    threads: int
    image_size: int
    limit_bytes: float
    repeat: int
    fits: int
    loads: int
    passes: int
    peers_keep_memory: bool
    progress: Progress

    def worker(
        self, script: Path, environment: str | None, place: str, variables: Mapping[str, str] | None = None
    ) -> Worker:
        """A new process in a folder of its own, for who closes it; `variables` are added to its environment's."""
        python = sys.executable if environment is None else str(self.pythons[environment])
        command = [python, "-W", "ignore", str(script)]
        folder = self.folder / place.replace(" ", "-").replace(",", "")
        return Worker(command, threads=self.threads, folder=folder, limit_bytes=self.limit_bytes, variables=variables)

    def roofline(self) -> dict[str, Any]:
        """Rates of the machine, or why there are none."""
        try:
            with self.worker(ROOFLINE, None, "roofline") as worker:
                return worker.ask("roofline", device=self.device)
        except WorkerFailed as error:
            return {"error": str(error)}

    def weights(self, arch: str, ours: Contestant) -> Path:
        """Random weights, the same for all; the file's name is without its ending."""
        target = self.folder / arch
        with self.worker(ours.script, None, f"{arch}-weights") as worker:
            worker.ask(
                "weights",
                arch=arch,
                folder=str(self.pictures.good),
                image_size=self.image_size,
                target=str(target),
            )
        return target

    def fit(self, arch: str, contestant: Contestant, weights: Path) -> Fit:
        """All repetitions of a contestant's fit, each in a process of its own."""
        answers: list[dict[str, Any]] = []
        highest = 0
        for number in range(self.fits):
            place = f"{arch}-{contestant.fit}-fit-{number}"
            with self.worker(contestant.script, contestant.environment, place, self._memory(contestant)) as worker:
                try:
                    answers.append(
                        worker.ask("fit", output=str(self.folder / place), **self._told(contestant, weights))
                    )
                except WorkerFailed as error:
                    return Fit(arch, contestant.fit, peak_bytes=worker.highest, error=str(error))
                highest = max(highest, answers[-1]["peak_bytes"])
        last = answers[-1]
        return Fit(
            arch,
            contestant.fit,
            seconds=[answer["seconds"] for answer in answers],
            steps=last.get("steps", {}),
            peak_bytes=highest,
            artifacts=last.get("artifacts", {}),
            artifact_bytes=last.get("artifact_bytes", {}),
            note=last.get("note", ""),
        )

    def infer(
        self,
        arch: str,
        contestants: Sequence[Contestant],
        weights: Path,
        results: Results,
        *,
        sources: Sequence[str],
        batches: Sequence[int],
    ) -> Iterator[None]:
        """Loads and cases, into `results`; yields after each case, when there is something new to report."""
        with ExitStack() as stack:
            workers: dict[Contestant, Worker] = {}
            with self.progress.step(f"{arch} loads", len(contestants)) as step:
                for contestant in contestants:
                    place = f"{arch}-{contestant.name}"
                    load, worker = self._loaded(arch, contestant, weights, results, place=place)
                    results.loads.append(load)
                    if worker is not None:
                        workers[contestant] = worker
                        stack.callback(worker.close)
                    step.advance(contestant.name)
            for source in sources:
                for batch in batches:
                    results.timings += self._case(arch, source, batch, workers)
                    yield

    def _loaded(
        self, arch: str, contestant: Contestant, weights: Path, results: Results, *, place: str
    ) -> tuple[Load, Worker | None]:
        """Load a contestant some times, and keep the last process; none if it cannot be loaded."""
        told = self._told(contestant, weights) | {"pictures": self.pictures.files}
        if contestant.role != "bare":
            fit = results.fit(arch, contestant.fit)
            if fit is None or contestant.artifact not in fit.artifacts:
                reason = "not fitted" if fit is None else fit.error or fit.note or "no artifact"
                return Load(arch, contestant.name, error=reason), None
            told["artifact"] = fit.artifacts[contestant.artifact]
        variables = self._memory(contestant)
        seconds, first = [], []
        for number in range(self.loads):
            worker = self.worker(contestant.script, contestant.environment, place, variables)
            try:
                answer = worker.ask("load", **told)
            except WorkerFailed as error:
                worker.close()
                return Load(arch, contestant.name, error=str(error)), None
            seconds.append(answer["seconds"])
            first.append(answer.get("first_seconds", answer["seconds"]))
            if number < self.loads - 1:
                worker.close()
        return Load(arch, contestant.name, seconds, first, worker.resident()), worker

    def _case(self, arch: str, source: str, batch: int, workers: dict[Contestant, Worker]) -> list[Timing]:
        """One repetition after the other; who fails is out, for this case, and for good if its process is gone."""
        found = {each: Timing(arch, source, batch, each.name) for each in workers}
        with self.progress.step(f"{arch} {source} {batch}", self.repeat) as step:
            for number in range(self.repeat):
                for contestant, worker in rotated(list(workers.items()), number):
                    if not found[contestant].error:
                        found[contestant] = self._turn(found[contestant], worker)
                ours = next((timing for each, timing in found.items() if each.name == OURS), None)
                step.advance(f"{ours.milliseconds[-1] / batch:.1f} ms an image" if ours and ours.milliseconds else "")
        return list(found.values())

    def _turn(self, timing: Timing, worker: Worker) -> Timing:
        time.sleep(_SETTLE)
        case = {"source": timing.source, "batch": timing.batch}
        try:
            answer = worker.ask("time", passes=self.passes, enough_ms=_ENOUGH_MS, **case)
        except WorkerFailed as error:
            return replace(timing, error=str(error))
        return replace(
            timing,
            milliseconds=[*timing.milliseconds, statistics.median(answer["milliseconds"])],
            map=answer.get("map", []),
            note=answer.get("note", ""),
        )

    def _memory(self, contestant: Contestant) -> Mapping[str, str]:
        """What makes a peer keep its memory; the others ask for that themselves."""
        return memory_kept() if contestant.role == "peer" and self.peers_keep_memory else {}

    def _told(self, contestant: Contestant, weights: Path) -> dict[str, Any]:
        """What a contestant has to know."""
        ending = ".pth" if contestant.environment else ".safetensors"
        return {
            "arch": weights.name,
            "weights": str(weights) + ending,
            "folder": str(self.pictures.good),
            "image_size": self.image_size,
            "device": self.device,
            "threads": self.threads,
            **contestant.settings,
        }


def rotated(order: Sequence[Item], by: int) -> list[Item]:
    """The same, begun `by` places later; what was before comes last."""
    start = by % max(len(order), 1)
    return [*order[start:], *order[:start]]
