"""Does memory grow with time? Mixed load for an hour, and the slope of the server's resident memory.

python benchmarks/service_soak.py [--minutes 60] [--warm-up 60] [--rate 40] [--most 1.0] [--json FILE]

Cameras of three categories send parts, some of them twice under one idempotency key; others ask for lists, parts,
heatmaps, kept pictures, exports, statistics and metrics, while an administrator goes on activating the categories'
other versions. Every answer must be the expected one. The slope is that of a line by least squares through the resident
memory after a warm-up of so many seconds, in which threads, connections and caches come to be; with more than `--most`
MB a minute it ends with 1. Networks are small (ResNet-18 at 64 pixels), so that there are many requests.
"""

import argparse
import json
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
from line import NeverTheSame, draw_parts, make_artifact
from server_process import MemoryWatch, serving, slope

CATEGORIES = ("bracket", "gasket", "linen")
WEIGHTS = {
    "inspect": 50,
    "inspect_twice": 10,
    "list": 8,
    "part": 8,
    "heatmap": 8,
    "image": 4,
    "statistics": 3,
    "metrics": 3,
    "export": 3,
    "category": 3,
}
_SENDERS = 8
_ACTIVATION_SECONDS = 2.0
_LATELY = timedelta(seconds=30)  # what exports and statistics look back to: they must not grow with the run


class UnexpectedAnswer(Exception):
    """An answer that the service should not have given."""


class Visitor:
    """One client that does this and that, at random, over one connection."""

    def __init__(self, address: str, pictures: NeverTheSame, *, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._client = httpx2.Client(base_url=address, timeout=60)
        self._pictures = pictures
        self._draw = random.Random(seed)
        self._number = 0
        self._known: dict[str, Any] = {}  # the last inspection that was answered

    def visit(self, ends: float, *, every: float) -> None:
        """Do something `every` so many seconds, until time.monotonic() is `ends`."""
        due = time.monotonic() + self._draw.random() * every
        with self._client:
            self.inspect()
            while due < ends:
                time.sleep(max(0.0, due - time.monotonic()))
                (action,) = self._draw.choices(list(WEIGHTS), list(WEIGHTS.values()))
                getattr(self, action)()
                self.done[action] += 1
                due = max(due + every, time.monotonic() - every)

    def inspect(self, **headers: str) -> None:
        """Send a part; with an idempotency key, twice, and get the same inspection."""
        category, self._number = self._draw.choice(CATEGORIES), self._number + 1
        asked = {"serial": f"S{self._draw.randrange(1000):04d}", "station": f"station {self._draw.randrange(4)}"}
        path = f"/v1/categories/{category}/inspections"
        picture = self._pictures[self._number]
        for repeated in range(2 if headers else 1):
            answer = self._client.post(path, params=asked, content=picture, headers=headers)
            inspection = _expected(answer, 201).json()
            if repeated and inspection != self._known:
                raise UnexpectedAnswer(f"the request {headers} was judged anew when it was repeated")
            self._known = inspection

    def inspect_twice(self) -> None:
        """Send a part under a key of its own, and again."""
        self.inspect(**{"Idempotency-Key": str(uuid.uuid4())})

    def list(self) -> None:
        """The newest inspections, and a page more."""
        page = self._ask("/v1/inspections", limit="100").json()
        _expected(self._client.get(page["links"]["next"] or page["links"]["self"]), 200)

    def part(self) -> None:
        """All inspections of a part."""
        self._ask(f"/v1/parts/{self._known['serial']}")

    def heatmap(self) -> None:
        """A heatmap in any style."""
        style = self._draw.choice(("overlay", "heat", "mask", "raw"))
        self._ask(f"/v1/inspections/{self._known['id']}/heatmap", style=style)

    def image(self) -> None:
        """A kept picture."""
        self._ask(f"/v1/inspections/{self._known['id']}/image")

    def statistics(self) -> None:
        """Counts of the last seconds."""
        self._ask("/v1/statistics", since=_lately())

    def metrics(self) -> None:
        """What Prometheus asks for."""
        self._ask("/metrics")

    def export(self) -> None:
        """The last seconds' inspections as a file."""
        self._ask(f"/v1/inspections.{self._draw.choice(('csv', 'ndjson'))}", since=_lately())

    def category(self) -> None:
        """A category's manifest in words."""
        self._ask(f"/v1/categories/{self._draw.choice(CATEGORIES)}")

    def _ask(self, path: str, **query: str) -> httpx2.Response:
        return _expected(self._client.get(path, params=query), 200)


def administrate(address: str, versions: dict[str, Sequence[str]], ended: threading.Event) -> int:
    """Activate one category's other version after the other; how often."""
    count = 0
    with httpx2.Client(base_url=address, timeout=60) as client:
        while not ended.wait(_ACTIVATION_SECONDS):
            turn, category = divmod(count, len(CATEGORIES))
            name = CATEGORIES[category]
            wished = {"version": versions[name][turn % len(versions[name])]}
            _expected(client.post(f"/v1/categories/{name}/activate", json=wished), 200)
            count += 1
    return count


def _expected(answer: httpx2.Response, status: int) -> httpx2.Response:
    if answer.status_code != status:
        raise UnexpectedAnswer(f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text[:300]}")
    return answer


def _lately() -> str:
    return (datetime.now(UTC) - _LATELY).isoformat()


def soak(
    process: int,
    address: str,
    pictures: Sequence[bytes],
    versions: dict[str, Sequence[str]],
    *,
    seconds: float,
    warm_up: float,
    rate: float,
) -> dict[str, Any]:
    """Send `rate` actions a second for so long. Raises UnexpectedAnswer."""
    ended, ends = threading.Event(), time.monotonic() + warm_up + seconds
    visitors = [Visitor(address, NeverTheSame(pictures, run=seed), seed=seed) for seed in range(_SENDERS)]
    with MemoryWatch(process, every=1.0) as memory, ThreadPoolExecutor(_SENDERS + 1) as pool:
        administration = pool.submit(administrate, address, versions, ended)
        try:
            for visit in [pool.submit(each.visit, ends, every=_SENDERS / rate) for each in visitors]:
                visit.result()
        finally:
            ended.set()
    sizes = [megabytes for second, megabytes in memory.samples if second >= warm_up]
    return {
        "seconds": seconds,
        "warm_up": warm_up,
        "done": dict(sum((each.done for each in visitors), Counter())) | {"activate": administration.result()},
        "mb_a_minute": slope(memory.samples, since=warm_up),
        "mb": {"first": memory.samples[0][1], "warm": sizes[0], "lowest": min(sizes), "highest": max(sizes)},
        "samples": memory.samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--warm-up", type=float, default=60.0, help="seconds before that")
    parser.add_argument("--rate", type=float, default=40.0, help="actions a second, if the server is as fast")
    parser.add_argument("--most", type=float, default=1.0, help="MB a minute")
    parser.add_argument("--size", type=int, default=256, help="of the pictures that are sent")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory() as name:
        folder, pictures = Path(name), draw_parts(8, size=given.size)
        artifacts = folder / "artifacts"
        versions = {
            category: [
                make_artifact(
                    artifacts, category=category, arch="resnet18", pictures=pictures, image_size=64, seed=seed
                ).stem
                for seed in range(2)
            ]
            for category in CATEGORIES
        }
        with serving(artifacts, folder / "data", JIGSIGHT_PRELOAD="1") as (process, address):
            found = soak(
                process,
                address,
                pictures,
                versions,
                seconds=60 * given.minutes,
                warm_up=given.warm_up,
                rate=given.rate,
            )
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    done = found["done"]
    print(f"{sum(done.values())} actions in {given.minutes:g} minutes and {given.warm_up:g} seconds: {done}")
    print(f"{found['mb_a_minute']:+.2f} MB a minute; {found['mb']}")
    if found["mb_a_minute"] > given.most:
        raise SystemExit(f"memory grows by more than {given.most:g} MB a minute")


if __name__ == "__main__":
    main()
