"""What administrators changed, newest first."""

from http import HTTPStatus
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query

from service.access.needs import needs
from service.problems import documented
from service.query_parameters import ONLY_KNOWN, Moment, check_window
from service.schemas.audit import Changes, NotedChange
from service.state import Running
from service.storage.audit import LARGEST_ID, Wanted
from service.uploads import Label

router = APIRouter(prefix="/v1/audit", tags=["audit"], dependencies=[needs("admin"), ONLY_KNOWN])


@router.get("", responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE))
async def list_changes(
    service: Running,
    since: Annotated[Moment | None, Query(description="this moment or later")] = None,
    until: Annotated[Moment | None, Query(description="before this moment")] = None,
    actor: Annotated[Label | None, Query(description="name of an API key, or `command line, <user>`")] = None,
    cursor: Annotated[int | None, Query(ge=1, le=LARGEST_ID, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Changes:
    """Changes, newest first. Changes that are made meanwhile do not move the pages that follow."""
    check_window(since, until)
    wanted = Wanted(since=since, until=until, actor=actor, before=cursor)
    found = await to_thread.run_sync(lambda: service.audit.find(wanted, limit=limit + 1), limiter=service.reading)
    page = found[:limit]
    return Changes(
        changes=[NotedChange.model_validate(each, from_attributes=True) for each in page],
        next=page[-1].id if len(found) > limit else None,
    )
