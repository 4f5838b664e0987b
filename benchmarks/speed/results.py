"""What was measured, as it is written to JSON; reports and goals are made of this alone."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Fit:
    """One contestant's fit: seconds of each repetition, the parts of the last, and the largest peak memory.

    `artifacts` and `artifact_bytes` are by the name of what loads them. `error` is why there is none.
    """

    arch: str
    contestant: str
    seconds: list[float] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    artifacts: dict[str, str] = field(default_factory=dict)
    artifact_bytes: dict[str, int] = field(default_factory=dict)
    note: str = ""
    error: str = ""


@dataclass(frozen=True)
class Load:
    """Seconds from the file to ready, and to the first answer, each in a new process whose libraries are imported."""

    arch: str
    contestant: str
    seconds: list[float] = field(default_factory=list)
    first_seconds: list[float] = field(default_factory=list)
    resident_bytes: int = 0
    error: str = ""


@dataclass(frozen=True)
class Timing:
    """One contestant's case: milliseconds a batch, one for each turn; `map` (h, w) is what came out."""

    arch: str
    source: str
    batch: int
    contestant: str
    milliseconds: list[float] = field(default_factory=list)
    map: list[int] = field(default_factory=list)
    note: str = ""
    error: str = ""


@dataclass
class Results:
    """A run so far. `absent` says why contestants take no part; `image_size` and `images` are what fits had."""

    command: str
    machine: dict[str, Any]
    image_size: int
    images: int
    roofline: dict[str, Any] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    fits: list[Fit] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)

    def fit(self, arch: str, contestant: str) -> Fit | None:
        """That fit, if it took place."""
        return next((each for each in self.fits if (each.arch, each.contestant) == (arch, contestant)), None)

    def load(self, arch: str, contestant: str) -> Load | None:
        """That load, if it took place."""
        return next((each for each in self.loads if (each.arch, each.contestant) == (arch, contestant)), None)

    def timing(self, arch: str, source: str, batch: int, contestant: str) -> Timing | None:
        """That case of that contestant, if it took place."""
        wanted = (arch, source, batch, contestant)
        return next((t for t in self.timings if (t.arch, t.source, t.batch, t.contestant) == wanted), None)

    def cases(self) -> Iterator[tuple[str, str, int]]:
        """Network, source and batch, in the order in which they were measured."""
        yield from dict.fromkeys((each.arch, each.source, each.batch) for each in self.timings)

    def architectures(self) -> list[str]:
        """Networks of which anything was measured, in that order."""
        return list(dict.fromkeys([*(fit.arch for fit in self.fits), *(timing.arch for timing in self.timings)]))

    def write(self, path: Path, goals: list[dict[str, Any]]) -> None:
        """As JSON, whole or not at all; without the places of artifacts, which are gone afterwards."""
        document = asdict(self)
        for fit in document["fits"]:
            del fit["artifacts"]
        replace_text(path, json.dumps(document | {"goals": goals}, indent=2) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".incoming-{path.name}")
    incoming.write_text(text, encoding="utf-8")
    incoming.replace(path)
