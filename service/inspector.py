"""One part, from the bytes of its picture to a committed verdict: the stops in their order.

admit -> read the upload -> decode and resize (bounded threads) -> detect (the engine's thread) -> judge -> keep the
picture -> commit. Any stop that fails ends in an error: a verdict is only ever what all of them agreed to.
"""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial

from anyio import CapacityLimiter, to_thread
from torch import Tensor

from models.artifact import Artifact
from models.errors import ScoreError
from models.images import decode, media_type
from service import maps
from service.engine import Engine, Reading
from service.pictures import Pictures, digest_of
from service.settings import KeepImages
from service.storage.inspections import Inspections, Record
from service.upload_gate import UploadGate
from service.uploads import Upload
from service.uuid7 import uuid7


@dataclass(frozen=True)
class _Picture:
    tile: Tensor  # (3, s, s) uint8
    size: tuple[int, int]  # height, width
    media_type: str
    seconds: float


@dataclass(frozen=True)
class Inspector:
    """Judges uploads. `gate`, `decoding` and `storing` bound how many are read, decoded and stored at once."""

    engine: Engine
    inspections: Inspections
    pictures: Pictures
    keep_images: KeepImages
    max_pixels: int
    gate: UploadGate
    decoding: CapacityLimiter
    storing: CapacityLimiter

    async def inspect(self, artifact: Artifact, read: Callable[[], Awaitable[Upload]]) -> Record:
        """The committed inspection of one picture; `read` is awaited once there is a place for it.

        Raises QueueFull, TooManyUploads, UploadTooSlow, what `read` raises, an ImageError, JudgingFailed, ScoreError,
        EngineStopped or StoreUnavailable.
        """
        with self.engine.admit(artifact.manifest.category):
            async with self.gate.enter():
                upload = await read()
            picture = await to_thread.run_sync(self._decode, artifact, upload.data, limiter=self.decoding)
            reading = await self.engine.read(artifact, picture.tile)
            finish = partial(self._conclude, artifact, upload, picture=picture, reading=reading)
            return await to_thread.run_sync(finish, limiter=self.storing)

    def _decode(self, artifact: Artifact, data: bytes) -> _Picture:
        begun = time.perf_counter()
        rgb = decode(data, max_pixels=self.max_pixels)
        tile = artifact.detector.preprocess.resize(rgb)
        return _Picture(tile, rgb.shape[:2], media_type(data), time.perf_counter() - begun)

    def _conclude(self, artifact: Artifact, upload: Upload, *, picture: _Picture, reading: Reading) -> Record:
        """Judge, keep the picture if the policy says so, and commit, in this order."""
        if not math.isfinite(reading.score):
            raise ScoreError(f"This picture could not be judged: its score is {reading.score}.")
        judgement = artifact.judge(reading.score, reading.map, size=picture.size)
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
        )
        pixel = artifact.manifest.threshold.pixel
        packed = maps.pack(reading.map, threshold=judgement.threshold, pixel_threshold=pixel)
        self.inspections.add([(record, packed)], kept=[(digest, len(upload.data), now)] if kept else [])
        return record


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
