"""What Prometheus reads."""

from http import HTTPStatus
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.access.needs import needs
from service.problems import documented
from service.query_parameters import ONLY_KNOWN
from service.state import Running

router = APIRouter(tags=["metrics"], dependencies=[needs("read"), ONLY_KNOWN])

_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus's text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get("/metrics", response_class=Response, responses=_TEXT | documented(HTTPStatus.UNPROCESSABLE_ENTITY))
async def show_metrics(service: Running) -> Response:
    """Counts and times since the start, and what is the case at the moment (docs/metrics.md)."""
    text = await to_thread.run_sync(service.metrics.text, limiter=service.probing)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
