"""What does a service do that is asked for twice as much as it can? It says no at once, keeps its word, and recovers.

python benchmarks/service_overload.py [--seconds 60] [--cores 3] [--image-size 224] [--json FILE]

The server has `--cores` cores, this client the others. First the client sends by turns, which finds the saturating
rate; then twice that rate whatever the answers (as `jigsight load --rate` does); then by turns again, and at last at
half the rate. It ends with 1, and says why, unless

- every part was either judged, or refused with 503 and Retry-After;
- the accepted ones' p99 is below what the queue's limit allows: so many parts at the rate at which parts were judged
  during the overload, times `--margin`, for the sender is timed from when a part was due;
- saying no left the service `--share` of the rate at which it judges by turns (the mean of before and after);
- the server's resident memory did not grow from the second quarter of the overload to the last by more than 5 %;
- afterwards every part is judged, and those sent before get the same scores.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
from line import NeverTheSame, draw_parts, make_artifact
from rich.console import Console
from server_process import MemoryWatch, serving

from service.load.run import Plan, run
from service.load.sender import Parts
from service.load.target import Target

CATEGORY = "linen"
GROWTH = 1.05
SAME = 1e-4  # relative
_CONNECTIONS = 1024
_TIMEOUT = 60.0


def scores(address: str, pictures: Sequence[bytes]) -> list[float]:
    """What the server says to these pictures, sent one after the other."""
    with httpx2.Client(base_url=address, timeout=_TIMEOUT) as client:
        answers = [client.post(f"/v1/categories/{CATEGORY}/inspections", content=each) for each in pictures]
    return [answer.raise_for_status().json()["score"] for answer in answers]


def send(
    target: Target, pictures: Sequence[bytes], *, number: int, seconds: float, rate: float | None, connections: int
) -> dict[str, Any]:
    """One run of load, in figures."""
    plan = Plan(rate=rate, seconds=seconds, connections=connections, timeout=_TIMEOUT)
    return run(plan, target, Parts(NeverTheSame(pictures, run=number)), console=Console(quiet=True)).document()


def measure(
    process: int, address: str, pictures: Sequence[bytes], *, seconds: float, queue_limit: int, margin: float
) -> dict[str, Any]:
    """Saturate, overload, and look whether all is well afterwards."""
    target = Target(address, CATEGORY)
    before = scores(address, pictures[:4])
    brief = max(5.0, seconds / 6)
    saturated = send(target, pictures, number=1, seconds=brief, rate=None, connections=queue_limit // 2)
    rate = saturated["achieved_per_second"]
    with MemoryWatch(process) as memory:
        overloaded = send(target, pictures, number=2, seconds=seconds, rate=2 * rate, connections=_CONNECTIONS)
    again = send(target, pictures, number=4, seconds=brief, rate=None, connections=queue_limit // 2)
    normal = send(target, pictures, number=3, seconds=brief, rate=rate / 2, connections=_CONNECTIONS)
    judged = overloaded["achieved_per_second"]
    quarter = max(1, len(memory.samples) // 4)
    sizes = [megabytes for _, megabytes in memory.samples]
    return {
        "seconds": seconds,
        "queue_limit": queue_limit,
        "saturated": saturated,
        "overloaded": overloaded,
        "again": again,
        "normal": normal,
        "share": 2 * judged / (rate + again["achieved_per_second"]),
        "p99_ms": overloaded["accepted_ms"].get("p99"),
        "bound_ms": 1000 * margin * queue_limit / judged if judged else None,
        "memory_mb": {
            "second_quarter": statistics.median(sizes[quarter : 2 * quarter] or sizes),
            "last_quarter": statistics.median(sizes[-quarter:]),
        },
        "memory_samples": memory.samples,
        "scores": {"before": before, "after": scores(address, pictures[:4])},
    }


def flaws(found: dict[str, Any], *, least_share: float) -> list[str]:
    """What is not as it should be."""
    said = []
    for each in found["overloaded"]["refusals"]:
        if each["status"] != 503 or each["without_retry_after"]:
            said.append(f"{each['count']} answers of {each['status']} {each['kind']}: {each['detail']}")
    if not found["overloaded"]["refusals"]:
        said.append("nothing was refused: it was no overload")
    if not found["overloaded"]["accepted"]:
        said.append("nothing was accepted")
    elif found["p99_ms"] > found["bound_ms"]:
        said.append(f"p99 of {found['p99_ms']:.0f} ms, above {found['bound_ms']:.0f} ms")
    if found["share"] < least_share:
        said.append(f"only {found['share']:.0%} of the rate was left to judge with")
    memory = found["memory_mb"]
    if memory["last_quarter"] > GROWTH * memory["second_quarter"]:
        said.append(f"memory grew from {memory['second_quarter']:.0f} to {memory['last_quarter']:.0f} MB")
    if found["normal"]["refusals"]:
        said.append(f"afterwards parts were refused: {found['normal']['refusals']}")
    pairs = zip(found["scores"]["before"], found["scores"]["after"], strict=True)
    if any(abs(before - after) > SAME * abs(before) for before, after in pairs):
        said.append(f"scores changed: {found['scores']}")
    return said


def table(found: dict[str, Any]) -> str:
    """The figures, for the README."""
    lines = ["| | offered | judged | refused with 503 | p50 | p99 |", "|---|---|---|---|---|---|"]
    for name in ("saturated", "overloaded", "again", "normal"):
        each = found[name]
        refused = sum(group["count"] for group in each["refusals"] if group["status"] == 503)
        times = each["accepted_ms"]
        lines.append(
            f"| {name} | {each['offered_per_second']:.1f}/s | {each['achieved_per_second']:.1f}/s | {refused} "
            f"| {times['p50']:.0f} ms | {times['p99']:.0f} ms |"
        )
    memory = found["memory_mb"]
    lines += (
        "",
        f"p99 may be {found['bound_ms'] or 0:.0f} ms (queue limit {found['queue_limit']}); judged "
        f"{found['share']:.0%} of what it can; "
        f"memory {memory['second_quarter']:.0f} -> {memory['last_quarter']:.0f} MB",
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cores", type=int, default=max(1, len(os.sched_getaffinity(0)) - 1), help="of the server")
    parser.add_argument("--queue-limit", type=int, default=64)
    parser.add_argument("--margin", type=float, default=1.5, help="of the bound on p99")
    parser.add_argument("--share", type=float, default=0.7)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--size", type=int, default=1024, help="of the pictures that are sent")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    available = sorted(os.sched_getaffinity(0))
    cores, rest = set(available[: given.cores]), set(available[given.cores :]) or set(available)
    with TemporaryDirectory() as name:
        folder = Path(name)
        pictures = draw_parts(given.pictures, size=given.size)
        make_artifact(
            folder / "artifacts", category=CATEGORY, arch=given.arch, pictures=pictures, image_size=given.image_size
        )
        os.sched_setaffinity(0, rest)
        limit = {"JIGSIGHT_QUEUE_LIMIT": str(given.queue_limit), "JIGSIGHT_PRELOAD": "1"}
        with serving(folder / "artifacts", folder / "data", cores=cores, **limit) as (process, address):
            found = measure(
                process, address, pictures, seconds=given.seconds, queue_limit=given.queue_limit, margin=given.margin
            )
    found["flaws"] = flaws(found, least_share=given.share)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))
    if found["flaws"]:
        raise SystemExit("\n".join(found["flaws"]))


if __name__ == "__main__":
    main()
