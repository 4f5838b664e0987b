"""What a running service consists of. The lifespan makes one; routes only read it."""

from dataclasses import dataclass
from typing import Annotated, TypedDict

from anyio import CapacityLimiter
from fastapi import Depends, Request

from service.engine import Engine
from service.inspector import Inspector
from service.pictures import Pictures
from service.registry import Registry
from service.retention import Retention
from service.settings import Settings
from service.storage.artifacts import Artifacts
from service.storage.database import Database
from service.storage.inspections import Inspections


@dataclass(frozen=True)
class Service:
    """The parts of one running service."""

    settings: Settings
    registry: Registry
    engine: Engine
    database: Database
    artifacts: Artifacts
    inspections: Inspections
    pictures: Pictures
    retention: Retention
    inspector: Inspector
    reading: CapacityLimiter  # threads that look things up in the database
    drawing: CapacityLimiter  # threads that render heatmaps


class State(TypedDict):
    """The lifespan's state, as ASGI servers hand it to every request."""

    service: Service


async def _of_request(request: Request) -> Service:
    service: Service = request.state.service
    return service


Running = Annotated[Service, Depends(_of_request)]
