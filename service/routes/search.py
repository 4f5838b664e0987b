"""Lists of inspections: in pages, to be read or followed, and as files of any length.

A file is sent while it is read, page by page. Its first page is read before the answer begins, so that a database
that is gone is a 503; one that goes later breaks the connection, and the file is recognisably cut off.
"""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import StreamingResponse

from service import cursor as cursors
from service.access.needs import needs
from service.export import CSV, NDJSON, Format
from service.presentation import path_of, present
from service.problems import documented
from service.query_parameters import ONLY_KNOWN, Asked
from service.schemas.inspections import InspectionPage, ListLinks
from service.state import Running, Service
from service.storage.inspections import Record
from service.storage.queries import Filters, Order, Page, Queries

router = APIRouter(prefix="/v1", tags=["inspections"], dependencies=[needs("read"), ONLY_KNOWN])

_REFUSALS = documented(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)
Ordered = Annotated[Order, Query(description="desc: newest first; asc: as they were stored")]


def _file(format: Format) -> dict[int | str, dict[str, Any]]:
    media_type = format.media_type.partition(";")[0]
    return {200: {"description": "The file", "content": {media_type: {"schema": {"type": "string"}}}}}


@router.get("/inspections", responses=_REFUSALS)
async def list_inspections(
    request: Request,
    service: Running,
    filters: Asked,
    order: Ordered = "desc",
    cursor: Annotated[str | None, Query(max_length=64, description="`next` of an earlier answer")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> InspectionPage:
    """A page of inspections. To follow a line, ask with `order=asc` and go on with `next`, again and again."""
    after = None if cursor is None else cursors.read(cursor, filters, order=order)
    show = partial(_page, request, service, filters, order=order, after=after, limit=limit)
    return await to_thread.run_sync(show, limiter=service.reading)


@router.get("/inspections.csv", response_class=StreamingResponse, responses=_file(CSV) | _REFUSALS)
async def export_csv(service: Running, filters: Asked, order: Ordered = "desc") -> StreamingResponse:
    """All inspections as CSV. Texts that a spreadsheet would take for formulas begin with an apostrophe."""
    return await _export(service, CSV, filters, order)


@router.get("/inspections.ndjson", response_class=StreamingResponse, responses=_file(NDJSON) | _REFUSALS)
async def export_ndjson(service: Running, filters: Asked, order: Ordered = "desc") -> StreamingResponse:
    """All inspections, a JSON object a line."""
    return await _export(service, NDJSON, filters, order)


def _page(
    request: Request, service: Service, filters: Filters, *, order: Order, after: int | None, limit: int
) -> InspectionPage:
    page = Queries(service.database).page(filters, order=order, limit=limit, after=after)
    following = None
    if page.more or order == "asc":
        following = cursors.write(page.reached, filters, order=order)
    link = partial(list_link, request, filters, limit=limit)
    newest = cursors.write(page.newest, filters, order="asc")
    return InspectionPage(
        items=[present(request, record) for record in page.records],
        next=following,
        links=ListLinks(
            self=link(order=order, cursor=None if after is None else cursors.write(after, filters, order=order)),
            next=None if following is None else link(order=order, cursor=following),
            follow=link(order="asc", cursor=newest),
        ),
    )


def list_link(request: Request, filters: Filters, *, order: Order, limit: int, cursor: str | None) -> str:
    """The address of a page of the list of inspections."""
    given = {"order": order, "limit": limit, "cursor": cursor, **vars(filters)}
    query = {
        name: value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
        for name, value in given.items()
        if value is not None
    }
    return f"{path_of(request, 'list_inspections')}?{urlencode(query)}"


def older_link(request: Request, filters: Filters, page: Page, *, limit: int) -> str | None:
    """The address of what comes after a page, newest first, if there is more."""
    if not page.more:
        return None
    return list_link(
        request, filters, order="desc", limit=limit, cursor=cursors.write(page.reached, filters, order="desc")
    )


async def _export(service: Service, format: Format, filters: Filters, order: Order) -> StreamingResponse:
    batches = Queries(service.database).batches(filters, order=order)
    pages = _pages(format, batches)
    first = await to_thread.run_sync(next, pages, None, limiter=service.reading)
    name = f"inspections-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{format.suffix}"
    return StreamingResponse(
        _stream(service, first, pages),
        media_type=format.media_type,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _pages(format: Format, batches: Iterator[list[Record]]) -> Iterator[bytes]:
    head = format.head
    for batch in batches:
        yield head + format.encode(batch)
        head = b""
    if head:
        yield head  # of a file without a row


async def _stream(service: Service, page: bytes | None, pages: Iterator[bytes]) -> AsyncIterator[bytes]:
    """One page after the other; a slow client keeps no thread and no transaction."""
    while page is not None:
        yield page
        page = await to_thread.run_sync(next, pages, None, limiter=service.reading)
