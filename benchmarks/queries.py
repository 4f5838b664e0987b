"""How long do questions take when a line has run for months? Lists, parts, statistics and exports on many inspections.

python benchmarks/queries.py [--inspections 1000000] [--map-edge 56] [--url postgresql://...] [--plans]

The rows are inserted directly into an empty database (by default a SQLite file in a temporary folder): four categories,
eight stations, 2 % of parts fail, every part is inspected twice, one inspection every 1.5 seconds until now, each with
its map, which no question reads (56×56 take 7 kB each on the disk). Every question is asked over HTTP of a
`jigsight serve` process, as often as fits into three seconds; printed is the median. --plans shows how SQLite goes
about the common ones.
"""

import argparse
import random
import re
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
from server_process import resident, serving
from sqlalchemy import event, insert

from models.compact_gaussian import CompactGaussianConfig
from models.detector import DetectorConfig
from models.manifest import DatasetRecord, Manifest, ThresholdRecord, WeightsRecord
from models.preprocess import PreprocessConfig
from service.storage.artifacts import Artifacts
from service.storage.database import Database, open_database
from service.storage.queries import Filters, Queries
from service.storage.statistics import Statistics
from service.storage.tables import INSPECTIONS, SCORE_MAPS
from service.uuid7 import uuid7

CATEGORIES = ("bracket", "gasket", "housing", "screw")
VERSION = "0123456789ab"
CALIBRATED = 320
SPACING = timedelta(seconds=1.5)
CHUNK = 5000


def manifest(category: str) -> Manifest:
    """As a category's artifact has it; none is loaded."""
    scorer = CompactGaussianConfig(dimensions=32, rank=4, shrinkage=0.1, pooling=3)
    return Manifest(
        category=category,
        kind="object",
        kind_reason="",
        detector=DetectorConfig(
            arch="resnet18", preprocess=PreprocessConfig(), fusion="none", scorer=scorer, smoothing=4
        ),
        weights=WeightsRecord(source="none", sha256="0" * 64),
        threshold=ThresholdRecord(rule="conformal", value=1.0, false_reject_rate=0.02),
        choices=(),
        validation={},
        dataset=DatasetRecord(images=CALIBRATED, fingerprint="1" * 64),
        textures="none",
        recipe={},
        packages={},
    )


def rows(count: int) -> Iterator[dict[str, object]]:
    """Inspections, oldest first; the last was made now."""
    rng = random.Random(0)
    now = datetime.now(UTC)
    for index in range(count):
        moment = now - SPACING * (count - index)
        failed = rng.random() < 0.02
        k = 1 if failed else rng.randint(7, CALIBRATED + 1)
        region = {"box": [rng.randint(0, 900), rng.randint(0, 900), 40, 30], "area": 900, "peak": 1.25}
        yield {
            "id": uuid7(moment),
            "category": CATEGORIES[index // 2 % 4],
            "version": VERSION,
            "serial": f"LOT-{index // 2000:05}/{index // 2:08}",
            "station": f"station {index % 8}",
            "verdict": "fail" if failed else "pass",
            "score": 1.25 if failed else 0.9 - 0.5 * k / CALIBRATED,
            "threshold": 1.0,
            "p_value": k / (CALIBRATED + 1),
            "regions": [region] if failed else [],
            "width": 1024,
            "height": 1024,
            "image_sha256": f"{index:064x}",
            "image_media_type": "image/jpeg",
            "image_kept": True,
            "created_at": moment,
            "durations": {"decode_ms": 7.25, "queue_ms": 1.5, "inference_ms": 21.75},
            "request_id": uuid.UUID(int=rng.getrandbits(128)).hex,
            "submitted_by": f"camera {index % 8}",
            "idempotency_key": None,
        }


def fill(database: Database, count: int, map_edge: int) -> None:
    """Remember the categories and insert the inspections with their maps."""
    Artifacts(database).remember((VERSION, manifest(category)) for category in CATEGORIES)
    values, size = bytes(map_edge**2 * 2), {"height": map_edge, "width": map_edge}
    source = rows(count)
    while chunk := [row for _, row in zip(range(CHUNK), source, strict=False)]:
        with database.adding() as connection:
            connection.execute(insert(INSPECTIONS), chunk)
            grids = [{"inspection": row["id"], "values": values, **size} for row in chunk]
            connection.execute(insert(SCORE_MAPS), grids)


def median_ms(ask: Callable[[], object]) -> float:
    """The median time of a call, over three seconds or at least three calls."""
    times: list[float] = []
    while sum(times) < 3 or len(times) < 3:
        begun = time.perf_counter()
        ask()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


def questions(client: httpx2.Client, count: int) -> dict[str, tuple[str, dict[str, str]]]:
    """What is asked, by name: path and query."""
    now = datetime.now(UTC)
    begin = now - SPACING * (count // 2)
    hour = {"since": begin.isoformat(), "until": (begin + timedelta(hours=1)).isoformat()}
    day = {"since": (now - timedelta(days=1)).isoformat()}
    newest = client.get("/v1/inspections?limit=500").json()
    serial = newest["items"][-1]["serial"]
    everything, counts = "/v1/inspections", "/v1/statistics"
    return {
        "list, newest 50": (everything, {}),
        "list, newest 500": (everything, {"limit": "500"}),
        "list of a category": (everything, {"category": "screw"}),
        "list of rejects": (everything, {"verdict": "fail"}),
        "list of a station": (everything, {"station": "station 3"}),
        "list of a station that never was": (everything, {"station": "nowhere"}),
        "list of a serial": (everything, {"serial": serial}),
        "list of an hour long ago": (everything, hour),
        "rejects of a category in that hour": (everything, {"category": "screw", "verdict": "fail", **hour}),
        "list since the beginning": (everything, {"since": "2000-01-01T00:00:00Z"}),
        "following, nothing new": (newest["links"]["follow"], {}),
        "a part": (f"/v1/parts/{serial}", {}),
        "statistics of 24 hours": (counts, day),
        "statistics of 24 hours, one category": (counts, {"category": "screw", **day}),
        "statistics of 31 days by day": (counts, {"bucket": "day", "since": (now - timedelta(days=31)).isoformat()}),
    }


def measure(client: httpx2.Client, process: int, count: int) -> None:
    """Print how long each question takes, how fast exports run, and what memory they take."""
    for name, (path, query) in questions(client, count).items():

        def ask(path: str = path, query: dict[str, str] = query) -> None:
            client.get(path, params=query or None).raise_for_status()

        print(f"| {name} | {median_ms(ask):.1f} ms |", flush=True)
    for suffix in ("csv", "ndjson"):
        before, begun, lines = resident(process), time.perf_counter(), 0
        with client.stream("GET", f"/v1/inspections.{suffix}") as answer:
            for chunk in answer.iter_bytes():
                lines += chunk.count(b"\n")
        rate, grown = lines / (time.perf_counter() - begun), resident(process) - before
        print(f"| export of {lines:,} lines, {suffix} | {rate:,.0f} a second, {grown:+.0f} MB |", flush=True)


def show_plans(database: Database, count: int) -> None:
    """Print SQLite's plan of every statement that common questions lead to."""
    now = datetime.now(UTC)
    hour = {"since": now - SPACING * (count // 2), "until": now - SPACING * (count // 2) + timedelta(hours=1)}
    queries, asked = Queries(database), []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    for given in ({}, {"serial": "LOT-1"}, {"category": "screw"}, {"station": "station 1"}, {"verdict": "fail"}, hour):
        queries.page(Filters(**given), order="desc", limit=50)
        queries.page(Filters(**given), order="asc", limit=50, after=count // 4)
    queries.page(Filters(category="screw", **hour), order="desc", limit=50)
    queries.part("LOT-00000/00000001", limit=50)
    Statistics(database).tallies(Filters(**hour), width="hour")
    Statistics(database).tallies(Filters(category="screw", **hour), width="hour")
    event.remove(database.engine, "before_cursor_execute", note)
    with database.engine.connect() as connection:
        for statement, parameters in dict(asked).items():
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = "; ".join(row.detail for row in plan)
            print(f"{re.sub('SELECT .* FROM', 'SELECT ... FROM', ' '.join(statement.split()))}\n    {steps}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inspections", type=int, default=1_000_000)
    parser.add_argument("--map-edge", type=int, default=56)
    parser.add_argument("--url", help="an empty database")
    parser.add_argument("--plans", action="store_true", help="print SQLite's plans as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = arguments.url or f"sqlite:///{folder / 'jigsight.sqlite'}"
        database = open_database(url)
        begun = time.perf_counter()
        fill(database, arguments.inspections, arguments.map_edge)
        print(f"filled in {time.perf_counter() - begun:.0f} s", flush=True)
        if arguments.plans:
            show_plans(database, arguments.inspections)
        database.close()
        (folder / "artifacts").mkdir()  # and none in it
        server = serving(folder / "artifacts", folder, JIGSIGHT_DATABASE_URL=url)
        with server as (process, address), httpx2.Client(base_url=address, timeout=120) as client:
            measure(client, process, arguments.inspections)


if __name__ == "__main__":
    main()
