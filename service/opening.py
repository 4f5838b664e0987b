"""What a running service owns: opened in the order in which one part needs another, closed in the reverse.

Whatever runs in a thread of its own is started here and ended here.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from anyio import CapacityLimiter

from models.device import pick_device
from service.access.guard import Guard
from service.access.open_mode import is_loopback
from service.engine import Engine
from service.gauges import at_the_moment
from service.idempotency import InFlight
from service.inspector import Inspector
from service.metrics import Metrics
from service.pictures import Pictures, open_place
from service.registry.registry import Registry, open_registry
from service.registry.watcher import watching
from service.retention import Limits, Retention
from service.settings import Settings
from service.state import Phase, Service
from service.storage.artifacts import Artifacts
from service.storage.audit import Audit
from service.storage.database import Database, open_database
from service.storage.inspections import Inspections
from service.storage.keys import Keys
from service.storage.pictures import PictureIndex
from service.storage.writer import Writer
from service.upload_gate import UploadGate

# Commits queue up behind one another anyway; drawing takes memory, and must not starve decoding.
_STORING_THREADS = 8
_READING_THREADS = 8
_LOADING_THREADS = 64  # they wait for one that loads, and those of other categories must not wait for them
_DRAWING_THREADS = 2
_PROBING_THREADS = 2  # of their own: a long listing must not make the service look ill


@contextmanager
def open_service(settings: Settings) -> Iterator[Service]:
    """Open the database, find the artifacts, run the engine; close all of it at the end.

    Raises StartupError or DeviceError. An artifact that cannot be used is no reason not to start.
    """
    with ExitStack() as stack:
        device = pick_device(settings.device)
        database = open_database(settings.url)
        stack.callback(database.close)
        metrics, inspections = Metrics(), Inspections(database)
        guard = Guard(Keys(database), local=is_loopback(settings.host), every=settings.keys_seconds)
        guard.start()
        stack.callback(guard.stop)
        artifacts = Artifacts(database)
        registry = _registry(settings, device, artifacts, stack)
        pictures, retention = _pictures(settings, database, stack)
        writer = Writer(inspections)
        writer.start()
        stack.callback(writer.stop, timeout=settings.stop_seconds)
        engine = _engine(settings, metrics, stack)
        loading = CapacityLimiter(_LOADING_THREADS)
        service = Service(
            settings=settings,
            device=device,
            metrics=metrics,
            registry=registry,
            engine=engine,
            writer=writer,
            database=database,
            guard=guard,
            audit=Audit(database),
            artifacts=artifacts,
            inspections=inspections,
            pictures=pictures,
            retention=retention,
            inspector=Inspector(
                registry=registry,
                engine=engine,
                inspections=inspections,
                writer=writer,
                pictures=pictures,
                metrics=metrics,
                in_flight=InFlight(),
                keep_images=settings.keep_images,
                max_pixels=settings.max_pixels,
                gate=UploadGate(limit=settings.upload_limit, seconds=settings.upload_seconds),
                decoding=CapacityLimiter(settings.decode_threads),
                storing=CapacityLimiter(_STORING_THREADS),
                loading=loading,
            ),
            loading=loading,
            changing=CapacityLimiter(1),
            reading=CapacityLimiter(_READING_THREADS),
            probing=CapacityLimiter(_PROBING_THREADS),
            drawing=CapacityLimiter(_DRAWING_THREADS),
            phase=Phase(),
        )
        metrics.watch(partial(at_the_moment, service))
        yield service


def _registry(settings: Settings, device: torch.device, artifacts: Artifacts, stack: ExitStack) -> Registry:
    registry = open_registry(
        settings.artifacts,
        device=device,
        artifacts=artifacts,
        budget=settings.memory_budget,
        precision=settings.precision,
    )
    if settings.preload:
        registry.preload()
    stack.enter_context(watching(registry.look, seconds=settings.scan_seconds))
    return registry


def _pictures(settings: Settings, database: Database, stack: ExitStack) -> tuple[Pictures, Retention]:
    place, index = open_place(settings), PictureIndex(database)
    limits = Limits(days=settings.keep_images_days, bytes=settings.keep_images_bytes)
    retention = Retention(place, index, limits=limits, seconds=settings.retention_seconds)
    retention.start()
    stack.callback(retention.stop)
    return Pictures(place, index), retention


def _engine(settings: Settings, metrics: Metrics, stack: ExitStack) -> Engine:
    engine = Engine(
        batch_limit=settings.batch_limit,
        queue_limit=settings.queue_limit,
        batch_wait=settings.batch_wait_ms / 1000,
        on_batch=metrics.batch,
    )
    engine.start()
    stack.callback(engine.stop, timeout=settings.stop_seconds)
    return engine
