"""What does HTTP cost? Parts a second at saturation, and the milliseconds of one part alone, against a plain loop.

python benchmarks/service_throughput.py [--arch resnet18 wide_resnet50_2] [--cores 3] [--torch-threads 3] [--repeat 3]

Each number is taken in turns with its counterpart, in one run: the plain loop (`plain_loop.py`) and a `jigsight serve`
process have the same cores, the same number of torch's and of decoding threads and the same batches; the client is
`jigsight load --saturate` on the cores that are left. The loop does not judge, keep pictures, commit or talk to
anybody. The pictures are JPEGs of 1024×1024, and no two requests send the same bytes. Besides the rates there is what
a part costs of one core, all threads together, which depends less on who else is at work. --json FILE writes it all.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import plain_loop
from line import NeverTheSame, draw_parts, make_artifact
from rich.console import Console
from server_process import on_cores, processor_seconds, serving

from service.load.run import Plan, run
from service.load.sender import Parts
from service.load.target import Target

CATEGORY = "linen"
BATCHES = (1, 2, 4, 8, 16)
WANTED_MS = 5.0
_PATIENCE = 60.0  # seconds: on a busy machine a large network takes longer than usual for what is in hand


@dataclass(frozen=True)
class Measurement:
    """How a network is measured. `seconds` is the length of one run at saturation."""

    arch: str
    pictures: Sequence[bytes]
    decode_threads: int
    connections: int
    seconds: float
    parts: int
    repeat: int


class Numbering:
    """Pictures for one run after the other, none of which has been sent before."""

    def __init__(self, pictures: Sequence[bytes]) -> None:
        self._pictures = pictures
        self._runs = 0

    def next(self) -> NeverTheSame:
        """Those of the next run."""
        self._runs += 1
        return NeverTheSame(self._pictures, run=self._runs)


def compare(asked: Measurement, *, artifact: Path, folder: Path, cores: set[int]) -> dict[str, Any]:
    """All figures of one network."""
    numbering = Numbering(asked.pictures)
    threads = asked.decode_threads
    with on_cores(cores):
        loop = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        loop.submit(plain_loop.prepare).result()  # from now on it is there, on those cores
    with loop:

        def plainly(batch: int, seconds: float) -> plain_loop.Rate:
            given = {"batch": batch, "threads": threads, "seconds": seconds}
            return loop.submit(plain_loop.throughput, artifact, numbering.next(), **given).result()

        by_batch = {batch: plainly(batch, asked.seconds / 2) for batch in BATCHES}
        best = max(by_batch, key=lambda batch: by_batch[batch].per_second)
        environment = {
            "JIGSIGHT_BATCH_LIMIT": str(best),
            "JIGSIGHT_DECODE_THREADS": str(threads),
            "JIGSIGHT_DEADLINE_SECONDS": str(_PATIENCE),
        }
        saturated, alone = [], []
        with serving(artifact.parent.parent, folder / "data", cores=cores, **environment) as (process, address):
            target = Target(address, CATEGORY)
            load(target, numbering.next(), connections=asked.connections, seconds=asked.seconds / 2)  # warms it up
            for _ in range(asked.repeat):
                stops = loop.submit(
                    plain_loop.alone, artifact, numbering.next(), data=folder, parts=asked.parts
                ).result()
                patience = asked.parts * (stops["total"] + WANTED_MS) / 1000
                answered = load(target, numbering.next(), connections=1, seconds=patience)
                alone.append({"service_ms": answered["accepted_ms"]["p50"], "plain_ms": stops})
                rate = plainly(best, asked.seconds)
                before = processor_seconds(process)
                answered = load(target, numbering.next(), connections=asked.connections, seconds=asked.seconds)
                core_ms = 1000 * (processor_seconds(process) - before) / answered["accepted"]
                served = plain_loop.Rate(answered["achieved_per_second"], core_ms)
                saturated.append({"service": served._asdict(), "plain": rate._asdict()})
    return summary(by_batch, best, saturated, alone)


def load(target: Target, pictures: NeverTheSame, *, connections: int, seconds: float) -> dict[str, Any]:
    """What `jigsight load --saturate` says; all parts must have been judged."""
    plan = Plan(rate=None, seconds=seconds, connections=connections, timeout=_PATIENCE)
    summed = run(plan, target, Parts(pictures), console=Console(quiet=True))
    if not summed.all_accepted:
        raise SystemExit(f"not all parts were judged: {summed.document()['refusals']}")
    return summed.document()


def summary(
    by_batch: dict[int, plain_loop.Rate],
    best: int,
    saturated: list[dict[str, Any]],
    alone: list[dict[str, Any]],
) -> dict[str, Any]:
    """Medians of the repetitions; of ratios and differences also the extremes."""
    shares = [each["service"]["per_second"] / each["plain"]["per_second"] for each in saturated]
    costs = [each["service_ms"] - each["plain_ms"]["total"] for each in alone]
    return {
        "batch": best,
        "plain_by_batch": {batch: rate._asdict() for batch, rate in by_batch.items()},
        "saturated": saturated,
        "alone": alone,
        **{
            f"{who}_{what}": statistics.median(each[who][what] for each in saturated)
            for who in ("plain", "service")
            for what in ("per_second", "core_ms")
        },
        "share": {"median": statistics.median(shares), "lowest": min(shares), "highest": max(shares)},
        "alone_ms": statistics.median(each["service_ms"] for each in alone),
        "cost_ms": {"median": statistics.median(costs), "lowest": min(costs), "highest": max(costs)},
    }


def row(arch: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    share, cost = found["share"], found["cost_ms"]
    return (
        f"| {arch} | {found['batch']} | {found['plain_per_second']:.1f} | {found['service_per_second']:.1f} "
        f"| {found['plain_core_ms']:.1f} ms | {found['service_core_ms']:.1f} ms "
        f"| {share['median']:.1%} ({share['lowest']:.1%} to {share['highest']:.1%}) | {found['alone_ms']:.1f} ms "
        f"| {cost['median']:+.1f} ms ({cost['lowest']:+.1f} to {cost['highest']:+.1f}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=["resnet18", "wide_resnet50_2"])
    parser.add_argument("--cores", type=int, default=max(1, len(os.sched_getaffinity(0)) - 1), help="of the server")
    parser.add_argument("--torch-threads", type=int, help="of each; as many as cores if not given")
    parser.add_argument("--decode-threads", type=int, default=4)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--parts", type=int, default=200, help="sent alone, one after the other")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    available = sorted(os.sched_getaffinity(0))
    cores, rest = set(available[: given.cores]), set(available[given.cores :]) or set(available)
    os.environ["OMP_NUM_THREADS"] = str(given.torch_threads or given.cores)  # the loop's and the server's
    figures = {}
    with TemporaryDirectory() as name:
        pictures = draw_parts(given.pictures, size=given.size)
        print("| network | batch | plain loop | over HTTP | core, loop | core, HTTP | share | one alone | more |")
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        for arch in given.arch:
            folder = Path(name) / arch
            artifact = make_artifact(folder / "artifacts", category=CATEGORY, arch=arch, pictures=pictures)
            asked = Measurement(
                arch,
                pictures,
                decode_threads=given.decode_threads,
                connections=given.connections,
                seconds=given.seconds,
                parts=given.parts,
                repeat=given.repeat,
            )
            os.sched_setaffinity(0, rest)
            figures[arch] = compare(asked, artifact=artifact, folder=folder, cores=cores)
            os.sched_setaffinity(0, available)
            print(row(arch, figures[arch]), flush=True)
            if given.json:
                given.json.write_text(json.dumps(vars(given) | {"json": None, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
