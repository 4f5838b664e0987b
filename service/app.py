"""`create_app(settings)`: routes, middleware, error handling, and the lifespan that owns what runs.

The documentation at /docs loads its scripts from this service: production lines have no internet.
"""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
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
from service.body_limit import BodyLimit
from service.engine import Engine
from service.inspector import Inspector
from service.pictures import Pictures
from service.registry import open_registry
from service.request_id import RequestId
from service.routes import audit, categories, health, inspections
from service.security_headers import SecurityHeaders
from service.settings import Settings
from service.state import Service, State
from service.storage.artifacts import Artifacts
from service.storage.audit import Audit
from service.storage.database import open_database
from service.storage.inspections import Inspections
from service.storage.keys import Keys
from service.upload_gate import UploadGate

logger = logging.getLogger(__name__)

# Commits queue up behind one another anyway; drawing takes memory, and must not starve decoding.
_STORING_THREADS = 8
_READING_THREADS = 8
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
            Middleware(SecurityHeaders, docs=_DOCS, static=_STATIC),
            *_cross_origin(settings),
            Middleware(problems.UnexpectedErrors),
            Middleware(BodyLimit, limit=settings.max_body_bytes),
        ],
        swagger_ui_parameters={"validatorUrl": None},  # it would ask an outside server
    )
    problems.install(app)
    for router in (inspections.router, categories.router, audit.router, health.router):
        app.include_router(router)
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
        activated = {each.category: each.version for each in artifacts.activations().values()}
        registry = open_registry(settings.artifacts, device=device, activated=activated)
        artifacts.remember(each for entry in registry.entries.values() for each in entry.versions.items())
        engine = Engine(batch_limit=settings.batch_limit, queue_limit=settings.queue_limit)
        engine.start()
        stack.callback(engine.stop)
        pictures = Pictures(settings.pictures)
        yield Service(
            settings=settings,
            registry=registry,
            engine=engine,
            database=database,
            guard=guard,
            audit=Audit(database),
            artifacts=artifacts,
            inspections=inspections_,
            pictures=pictures,
            inspector=Inspector(
                engine=engine,
                inspections=inspections_,
                pictures=pictures,
                keep_images=settings.keep_images,
                max_pixels=settings.max_pixels,
                gate=UploadGate(limit=settings.upload_limit, seconds=settings.upload_seconds),
                decoding=CapacityLimiter(settings.decode_threads),
                storing=CapacityLimiter(_STORING_THREADS),
            ),
            reading=CapacityLimiter(_READING_THREADS),
            drawing=CapacityLimiter(_DRAWING_THREADS),
        )


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
