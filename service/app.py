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

from models.device import pick_device
from service import openapi, problems
from service.body_limit import BodyLimit
from service.engine import Engine
from service.inspector import Inspector
from service.pictures import Pictures, open_place
from service.registry import open_registry
from service.request_id import RequestId
from service.retention import Limits, Retention
from service.routes import categories, health, inspections
from service.settings import Settings
from service.state import Service, State
from service.storage.artifacts import Artifacts
from service.storage.database import open_database
from service.storage.inspections import Inspections
from service.storage.pictures import PictureIndex
from service.upload_gate import UploadGate

logger = logging.getLogger(__name__)

# Commits queue up behind one another anyway; drawing takes memory, and must not starve decoding.
_STORING_THREADS = 8
_READING_THREADS = 8
_DRAWING_THREADS = 2

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
        docs_url="/docs",
        redoc_url=None,
        title="JigSight",
        version=_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        middleware=[
            Middleware(RequestId),
            Middleware(problems.UnexpectedErrors),
            Middleware(BodyLimit, limit=settings.max_body_bytes),
        ],
        swagger_ui_parameters={"validatorUrl": None},  # it would ask an outside server
    )
    problems.install(app)
    for router in (inspections.router, categories.router, health.router):
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
        artifacts, inspections_ = Artifacts(database), Inspections(database)
        activated = {each.category: each.version for each in artifacts.activations().values()}
        registry = open_registry(settings.artifacts, device=device, activated=activated)
        artifacts.remember(each for entry in registry.entries.values() for each in entry.versions.items())
        engine = Engine(batch_limit=settings.batch_limit, queue_limit=settings.queue_limit)
        engine.start()
        stack.callback(engine.stop)
        place, index = open_place(settings), PictureIndex(database)
        pictures = Pictures(place, index)
        limits = Limits(days=settings.keep_images_days, bytes=settings.keep_images_bytes)
        retention = Retention(place, index, limits=limits, seconds=settings.retention_seconds)
        retention.start()
        stack.callback(retention.stop)
        yield Service(
            settings=settings,
            registry=registry,
            engine=engine,
            database=database,
            artifacts=artifacts,
            inspections=inspections_,
            pictures=pictures,
            retention=retention,
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


def _version() -> str:
    try:
        return version("jigsight")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"
