"""`create_app(settings)`: routes, middleware, error handling, and the lifespan that owns what runs.

The documentation at /docs loads its scripts from this service: production lines have no internet.
"""

import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from models.device import pick_device
from service import openapi, problems
from service.access.guard import Guard
from service.access.open_mode import is_loopback
from service.access_log import AccessLog
from service.body_limit import BodyLimit
from service.engine import Engine
from service.idempotency import InFlight
from service.inspector import Inspector
from service.metrics import Metrics
from service.pictures import Pictures
from service.registry.registry import open_registry
from service.registry.watcher import watching
from service.request_id import RequestId
from service.routes import (
    activation,
    audit,
    categories,
    health,
    inspections,
    metrics,
    open_inference,
    parts,
    search,
    statistics,
)
from service.routes.metrics import at_the_moment
from service.security_headers import SecurityHeaders
from service.settings import Settings
from service.state import Service, State
from service.storage.artifacts import Artifacts
from service.storage.audit import Audit
from service.storage.database import open_database
from service.storage.inspections import Inspections
from service.storage.keys import Keys
from service.storage.writer import Writer
from service.upload_gate import UploadGate

logger = logging.getLogger(__name__)

# Commits queue up behind one another anyway; drawing takes memory, and must not starve decoding.
_STORING_THREADS = 8
_READING_THREADS = 8
_LOADING_THREADS = 64  # they wait for one that loads, and those of other categories must not wait for them
_DRAWING_THREADS = 2
_DOCS, _STATIC = "/docs", "/static-offline-docs"

DESCRIPTION = """Pictures of parts in, verdicts out.

`POST /v1/categories/{category}/inspections` with a picture answers 201 with `pass` or `fail`, the score, the
regions that fail and links to heatmaps. A defective part is a 201 too: errors are for requests that could
not be judged, and never carry a verdict. A verdict that was answered has been stored.
"""


def create_app(settings: Settings) -> FastAPI:
    """The service as an ASGI application; nothing is opened before its lifespan begins."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        with open_service(settings) as service:
            yield {"service": service}

    app = FastAPIOffline(
        docs_url=_DOCS,
        redoc_url=None,
        static_url=_STATIC,
        title="JigSight",
        version=_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        middleware=[
            Middleware(RequestId),
            Middleware(AccessLog),
            Middleware(SecurityHeaders, docs=_DOCS, static=_STATIC),
            *_cross_origin(settings),
            Middleware(problems.UnexpectedErrors),
            Middleware(BodyLimit, limit=settings.max_body_bytes),
        ],
        swagger_ui_parameters={"validatorUrl": None},  # it would ask an outside server
    )
    problems.install(app)
    for part in (
        *(inspections, search, parts, statistics),
        *(categories, activation, audit),
        *(health, metrics, open_inference),
    ):
        app.include_router(part.router)
    openapi.install(app)
    return app


@contextmanager
def open_service(settings: Settings) -> Iterator[Service]:
    """Open the database, load the artifacts, run the engine; close all of it in reverse order.

    Raises StartupError or DeviceError. An artifact that cannot be used is no reason not to start.
    """
    with ExitStack() as stack:
        device = pick_device(settings.device)
        database = open_database(settings.url)
        stack.callback(database.close)
        guard = Guard(Keys(database), local=is_loopback(settings.host), every=settings.keys_seconds)
        guard.start()
        stack.callback(guard.stop)
        artifacts, inspections_ = Artifacts(database), Inspections(database)
        budget = settings.memory_budget
        registry = open_registry(settings.artifacts, device=device, artifacts=artifacts, budget=budget)
        if settings.preload:
            registry.preload()
        stack.enter_context(watching(registry.look, seconds=settings.scan_seconds))
        counted = Metrics()
        writer = Writer(inspections_)
        writer.start()
        stack.callback(writer.stop, timeout=settings.stop_seconds)
        engine = Engine(
            batch_limit=settings.batch_limit,
            queue_limit=settings.queue_limit,
            batch_wait=settings.batch_wait_ms / 1000,
            on_batch=counted.batch,
        )
        engine.start()
        stack.callback(engine.stop, timeout=settings.stop_seconds)
        pictures = Pictures(settings.pictures)
        loading, reading = CapacityLimiter(_LOADING_THREADS), CapacityLimiter(_READING_THREADS)
        service = Service(
            settings=settings,
            device=device,
            metrics=counted,
            registry=registry,
            engine=engine,
            database=database,
            guard=guard,
            audit=Audit(database),
            artifacts=artifacts,
            inspections=inspections_,
            pictures=pictures,
            inspector=Inspector(
                registry=registry,
                engine=engine,
                inspections=inspections_,
                writer=writer,
                pictures=pictures,
                metrics=counted,
                in_flight=InFlight(),
                keep_images=settings.keep_images,
                max_pixels=settings.max_pixels,
                gate=UploadGate(limit=settings.upload_limit, seconds=settings.upload_seconds),
                decoding=CapacityLimiter(settings.decode_threads),
                storing=CapacityLimiter(_STORING_THREADS),
                loading=loading,
                reading=reading,
            ),
            loading=loading,
            changing=CapacityLimiter(1),
            reading=reading,
            drawing=CapacityLimiter(_DRAWING_THREADS),
            stopping=threading.Event(),
        )
        counted.watch(partial(at_the_moment, service))
        yield service


def _cross_origin(settings: Settings) -> list[Middleware]:
    """For pages of the origins in the settings; of no others, and never with cookies."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-API-Key", "X-Request-ID"],
            expose_headers=["Content-Disposition", "Location", "Retry-After", "X-Map-Shape", "X-Request-ID"],
        )
    ]


def _version() -> str:
    try:
        return version("jigsight")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"
