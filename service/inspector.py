"""Parts, from the bytes of their pictures to committed verdicts: the stops in their order.

admit -> read the upload -> decode and resize (bounded threads) -> detect (the engine's thread) -> judge and keep the
picture (bounded threads) -> commit (the writer's thread). Any stop that fails ends in an error: a verdict is only
ever what all of them agreed to.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import IntegrityError
from torch import Tensor

from models.artifact import Artifact
from models.errors import ScoreError
from models.images import media_type
from models.taken import take
from service import maps
from service.connection import Gone, while_connected
from service.engine import Engine
from service.errors import VersionNotActive
from service.idempotency import InFlight, check_same
from service.metrics import Metrics
from service.pictures import Pictures, digest_of
from service.registry.registry import Registry
from service.runs import Reading
from service.settings import KeepImages
from service.storage.inspections import Addition, Inspections, Record
from service.storage.writer import Writer
from service.upload_gate import UploadGate
from service.uploads import Upload
from service.uuid7 import uuid7

Result = TypeVar("Result")


@dataclass(frozen=True)
class Request:
    """Whose request to inspect it is, and how long it is worth working on.

    `deadline`, of time.perf_counter(), is the sender's; `patience` is how many seconds its parts may wait for the
    detector. `gone` returns when nobody waits for the answer any more.
    """

    id: str
    sender: str
    deadline: float
    patience: float
    gone: Gone
    idempotency_key: str | None = None


@dataclass(frozen=True)
class _Picture:
    tile: Tensor  # (3, s, s) uint8
    size: tuple[int, int]  # height, width
    media_type: str
    seconds: float


@dataclass(frozen=True)
class Inspector:
    """Judges uploads. `gate`, `decoding` and `storing` bound how many are read, decoded and concluded at once."""

    registry: Registry
    engine: Engine
    inspections: Inspections
    writer: Writer
    pictures: Pictures
    metrics: Metrics
    in_flight: InFlight
    keep_images: KeepImages
    max_pixels: int
    gate: UploadGate
    decoding: CapacityLimiter
    storing: CapacityLimiter
    loading: CapacityLimiter

    async def inspect(
        self, category: str, read: Callable[[], Awaitable[Upload]], request: Request
    ) -> tuple[Record, bool]:
        """The committed inspection of one picture, and whether it had been answered before.

        `read` is awaited once there is a place for it. Raises UnknownCategory, ArtifactUnavailable, QueueFull,
        TooManyUploads, UploadTooSlow, what `read` raises, an ImageError, JudgingFailed, ScoreError, DeadlinePassed,
        EngineStopped, StoreUnavailable, RequestInFlight, KeyReused or ClientDisconnect.
        """
        begun = time.perf_counter()
        self.registry.entry(category)
        with self.in_flight.hold(request.sender, request.idempotency_key), self.engine.admit(category):
            async with self.gate.enter():
                upload = await read()
            first = await self._answered(category, upload, request)
            if first is not None:
                return first, True
            try:
                (record,) = await self._judge(category, [upload], request)
            except IntegrityError:  # another process was faster with the same key
                first = await self._answered(category, upload, request)
                if first is None:
                    raise
                return first, True
        self.metrics.stage("total", time.perf_counter() - begun)
        return record, False

    async def inspect_all(
        self, category: str, uploads: Sequence[Upload], request: Request, *, version: str | None = None
    ) -> list[Record]:
        """The committed inspections of several pictures: all are judged by one artifact and stored, or none is.

        Raises VersionNotActive for a `version` that is not the active one, and what `inspect` does.
        """
        begun = time.perf_counter()
        self.registry.entry(category)
        with self.engine.admit(category, len(uploads)):
            records = await self._judge(category, uploads, request, version=version)
        self.metrics.stage("total", time.perf_counter() - begun)
        return records

    async def _answered(self, category: str, upload: Upload, request: Request) -> Record | None:
        """What a request with this key was answered with before."""
        if request.idempotency_key is None:
            return None
        look = partial(self.inspections.answered, request.idempotency_key, submitted_by=request.sender)
        first = await to_thread.run_sync(look, limiter=self.storing)
        if first is not None:
            check_same(first, category, upload)
        return first

    async def _artifact(self, category: str, version: str | None) -> Artifact:
        artifact = self.registry.loaded(category)
        if artifact is None:
            artifact = await to_thread.run_sync(self.registry.artifact, category, limiter=self.loading)
        if version not in (None, artifact.version):
            raise VersionNotActive(category, str(version), active=artifact.version)
        return artifact

    async def _judge(
        self, category: str, uploads: Sequence[Upload], request: Request, *, version: str | None = None
    ) -> list[Record]:
        artifact = await self._artifact(category, version)
        threshold = self.registry.threshold(category, artifact.version)  # one for all of them, whatever changes now
        decoding = (
            to_thread.run_sync(self._decode, artifact, upload.data, limiter=self.decoding) for upload in uploads
        )
        pictures = await _together(decoding)
        deadline = min(request.deadline, time.perf_counter() + request.patience)
        detecting = _together(self.engine.read(artifact, picture.tile, deadline=deadline) for picture in pictures)
        readings = await while_connected(detecting, request.gone)
        concluding = (
            to_thread.run_sync(
                partial(self._conclude, artifact, *each, threshold=threshold, request=request), limiter=self.storing
            )
            for each in zip(uploads, pictures, readings, strict=True)
        )
        additions = await _together(concluding)
        begun = time.perf_counter()
        await asyncio.wrap_future(self.writer.commit(additions))
        self.metrics.stage("store", time.perf_counter() - begun)
        for addition in additions:
            self.metrics.judged(addition.record)
        return [addition.record for addition in additions]

    def _decode(self, artifact: Artifact, data: bytes) -> _Picture:
        begun = time.perf_counter()
        taken = take(data, artifact.detector.preprocess, max_pixels=self.max_pixels)
        return _Picture(taken.tile, taken.size, media_type(data), time.perf_counter() - begun)

    def _conclude(
        self,
        artifact: Artifact,
        upload: Upload,
        picture: _Picture,
        reading: Reading,
        *,
        threshold: float | None,
        request: Request,
    ) -> Addition:
        """Judge, and keep the picture if the policy says so."""
        if not math.isfinite(reading.score):
            raise ScoreError(f"This picture could not be judged: its score is {reading.score}.")
        judgement = artifact.judge(reading.score, reading.map, size=picture.size, threshold=threshold)
        kept = self.keep_images == "all" or (self.keep_images == "rejects" and judgement.verdict == "fail")
        digest = self.pictures.keep(upload.data) if kept else digest_of(upload.data)
        height, width = picture.size
        now = datetime.now(UTC)
        record = Record(
            id=uuid7(now),
            category=artifact.manifest.category,
            version=artifact.version,
            serial=upload.serial,
            station=upload.station,
            verdict=judgement.verdict,
            score=judgement.score,
            threshold=judgement.threshold,
            p_value=judgement.p_value,
            regions=[asdict(region) for region in judgement.regions],
            width=width,
            height=height,
            image_sha256=digest,
            image_media_type=picture.media_type,
            image_kept=kept,
            created_at=now,
            durations={
                "decode_ms": _milliseconds(picture.seconds),
                "queue_ms": _milliseconds(reading.queue_seconds),
                "inference_ms": _milliseconds(reading.inference_seconds),
            },
            request_id=request.id,
            submitted_by=request.sender,
            idempotency_key=request.idempotency_key,
        )
        pixel = artifact.manifest.threshold.pixel
        packed = maps.pack(reading.map, threshold=judgement.threshold, pixel_threshold=pixel)
        return Addition(record, packed, picture_bytes=len(upload.data) if kept else None)


async def _together(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results, in order, or the first failure once all have ended.

    A thread cannot be cancelled: who does not wait for it has more of them running than were allowed.
    """
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
