"""What the service is compared with: the same detector in a plain loop, and a part's stops one after the other.

Both run in a process of their own, on the server's cores. Nothing is left out but HTTP, threads that wait for one
another, and whatever else makes a service of it.
"""

import itertools
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from queue import Full, Queue
from typing import NamedTuple

from torch import Tensor

from models.allocator import keep_memory
from models.artifact import Artifact, load
from models.images import media_type
from models.taken import take
from service import maps
from service.local_pictures import LocalPictures
from service.pictures import Pictures
from service.runs import detect
from service.storage.artifacts import Artifacts
from service.storage.database import open_database
from service.storage.inspections import Addition, Inspections, Record
from service.storage.pictures import PictureIndex
from service.uuid7 import uuid7

_AHEAD = 4  # batches that are decoded before they are asked for
_WARM_UP = 2.0  # seconds

_loaded = cache(load)


class Rate(NamedTuple):
    """Parts a second, and the milliseconds of a core that each has cost, all threads together."""

    per_second: float
    core_ms: float


def prepare() -> None:
    """What the service does at its start, for a fair comparison; once, before anything else."""
    keep_memory()


def throughput(path: Path, pictures: Sequence[bytes], *, batch: int, threads: int, seconds: float) -> Rate:
    """How fast it is: `threads` decode and resize, this one runs the detector on full batches."""
    artifact = _loaded(path)
    tiles: Queue[Tensor] = Queue(maxsize=_AHEAD * batch)
    numbers, ended = itertools.count(), threading.Event()
    decoding = [
        threading.Thread(target=_decode, args=(artifact, pictures, numbers, tiles, ended)) for _ in range(threads)
    ]
    for thread in decoding:
        thread.start()
    try:
        _run(artifact, tiles, batch=batch, seconds=_WARM_UP)
        return _run(artifact, tiles, batch=batch, seconds=seconds)
    finally:
        ended.set()
        for thread in decoding:
            thread.join()


def _decode(
    artifact: Artifact,
    pictures: Sequence[bytes],
    numbers: Iterator[int],
    tiles: "Queue[Tensor]",
    ended: threading.Event,
) -> None:
    for number in numbers:
        tile = take(pictures[number], artifact.detector.preprocess).tile
        while not ended.is_set():
            try:
                tiles.put(tile, timeout=0.1)
                break
            except Full:
                continue
        else:
            return


def _run(artifact: Artifact, tiles: "Queue[Tensor]", *, batch: int, seconds: float) -> Rate:
    begun, worked, parts = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < begun + seconds:
        detect(artifact, [tiles.get() for _ in range(batch)])
        parts += batch
    return Rate(parts / (time.perf_counter() - begun), 1000 * (time.process_time() - worked) / parts)


def alone(path: Path, pictures: Sequence[bytes], *, data: Path, parts: int) -> dict[str, float]:
    """Milliseconds that each stop takes, and `total`, for one part after the other: medians."""
    artifact = _loaded(path)
    database = open_database(f"sqlite:///{data / 'alone.sqlite'}")
    Artifacts(database).remember([(artifact.version, artifact.manifest)])
    kept = Pictures(LocalPictures(data / "pictures"), PictureIndex(database))
    inspections = Inspections(database)
    times = [_stops(artifact, pictures[number], kept, inspections) for number in range(parts)]
    database.close()
    return {stop: 1000 * statistics.median(each[stop] for each in times) for stop in times[0]}


def _stops(artifact: Artifact, data: bytes, kept: Pictures, inspections: Inspections) -> dict[str, float]:
    """Seconds that one part takes, from its bytes to its commit."""
    marks = [time.perf_counter()]
    taken = take(data, artifact.detector.preprocess)
    marks.append(time.perf_counter())
    (reading,) = detect(artifact, [taken.tile])
    marks.append(time.perf_counter())
    judgement = artifact.judge(reading.score, reading.map, size=taken.size)
    packed = maps.pack(reading.map, threshold=judgement.threshold)
    marks.append(time.perf_counter())
    digest = kept.keep(data)
    marks.append(time.perf_counter())
    now = datetime.now(UTC)
    record = Record(
        id=uuid7(now),
        category=artifact.manifest.category,
        version=artifact.version,
        serial=None,
        station=None,
        verdict=judgement.verdict,
        score=judgement.score,
        threshold=judgement.threshold,
        p_value=judgement.p_value,
        regions=[],
        width=taken.size[1],
        height=taken.size[0],
        image_sha256=digest,
        image_media_type=media_type(data),
        image_kept=True,
        created_at=now,
        durations={},
    )
    inspections.add([Addition(record, packed, picture_bytes=len(data))])
    marks.append(time.perf_counter())
    stops = [end - begin for begin, end in itertools.pairwise(marks)]
    return dict(zip(("decode", "detect", "judge", "keep", "commit"), stops, strict=True)) | {"total": sum(stops)}
