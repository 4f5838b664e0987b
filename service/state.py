"""What a running service consists of. The lifespan makes one; routes only read it."""

from dataclasses import dataclass
from typing import Annotated, TypedDict

import torch
from anyio import CapacityLimiter
from fastapi import Depends, Request
from starlette.types import Scope

from service.access.guard import Guard
from service.engine import Engine
from service.inspector import Inspector
from service.metrics import Metrics
from service.pictures import Pictures
from service.registry.registry import Registry
from service.retention import Retention
from service.settings import Settings
from service.storage.artifacts import Artifacts
from service.storage.audit import Audit
from service.storage.database import Database
from service.storage.inspections import Inspections
from service.storage.writer import Writer


@dataclass
class Phase:
    """What changes in a service's life, but for what its parts know themselves."""

    stopping: bool = False  # the process has been told to end


@dataclass(frozen=True)
class Service:
    """The parts of one running service."""

    settings: Settings
    device: torch.device
    metrics: Metrics
    registry: Registry
    engine: Engine
    writer: Writer
    database: Database
    guard: Guard
    audit: Audit
    artifacts: Artifacts
    inspections: Inspections
    pictures: Pictures
    retention: Retention
    inspector: Inspector
    loading: CapacityLimiter  # threads that wait for an artifact to be loaded
    changing: CapacityLimiter  # threads that change what is active, one after the other
    reading: CapacityLimiter  # threads that look things up in the database
    drawing: CapacityLimiter  # threads that render heatmaps
    probing: CapacityLimiter  # threads that look how the service does
    phase: Phase


class State(TypedDict):
    """The lifespan's state, as ASGI servers hand it to every request."""

    service: Service


def service_of(scope: Scope) -> Service:
    """The service that a request came to."""
    service: Service = scope["state"]["service"]
    return service


async def _of_request(request: Request) -> Service:
    return service_of(request.scope)


Running = Annotated[Service, Depends(_of_request)]
