"""What is known of a part: whether it may go on, and why."""

from functools import partial
from http import HTTPStatus
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Request

from service.access.needs import needs
from service.presentation import path_of, present
from service.problems import documented
from service.query_parameters import ONLY_KNOWN
from service.routes.search import older_link
from service.schemas.inspections import Part, PartLinks
from service.state import Running, Service
from service.storage.queries import Filters, Queries
from service.uploads import Label

router = APIRouter(prefix="/v1/parts", tags=["parts"], dependencies=[needs("read"), ONLY_KNOWN])

_SHOWN = 200
_REFUSALS = documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)


@router.get("/{serial:path}", responses=_REFUSALS)
async def show_part(
    request: Request, service: Running, serial: Annotated[Label, Path(description="exactly as it was inspected")]
) -> Part:
    """One part's disposition, its latest inspections and its 200 newest ones. A part never seen is a 404."""
    return await to_thread.run_sync(partial(_part, request, service, serial), limiter=service.reading)


def _part(request: Request, service: Service, serial: str) -> Part:
    part = Queries(service.database).part(serial, limit=_SHOWN)
    return Part(
        serial=serial,
        disposition=part.disposition,
        latest=[present(request, record) for record in part.latest],
        inspections=[present(request, record) for record in part.inspections.records],
        links=PartLinks(
            self=path_of(request, "show_part", serial=serial),
            next=older_link(request, Filters(serial=serial), part.inspections, limit=_SHOWN),
        ),
    )
