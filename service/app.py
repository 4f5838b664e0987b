"""`create_app(settings)`: routes, middleware, error handling, and the lifespan that owns what runs.

The documentation at /docs loads its scripts from this service: production lines have no internet.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from service import openapi, problems
from service.access_log import AccessLog
from service.body_limit import BodyLimit
from service.opening import open_service
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
from service.security_headers import SecurityHeaders
from service.settings import Settings
from service.state import State
from service.version import installed_version

logger = logging.getLogger(__name__)

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
        version=installed_version(),
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
