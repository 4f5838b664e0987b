"""What Prometheus reads."""

from collections.abc import Iterable
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric

from service.access.needs import needs
from service.metrics import device_memory, gauge
from service.state import Running, Service

router = APIRouter(tags=["metrics"], dependencies=[needs("read")])

_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus's text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get("/metrics", response_class=Response, responses=_TEXT)
async def show_metrics(service: Running) -> Response:
    """Counts and times since the start, and what is the case at the moment (docs/metrics.md)."""
    text = await to_thread.run_sync(service.metrics.text, limiter=service.reading)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def at_the_moment(service: Service) -> Iterable[Metric]:
    """What is asked of the running service, whenever Prometheus asks."""
    engine = service.engine
    yield gauge("jigsight_queue_depth", "Parts in hand, from the upload to the commit", "category", engine.in_hand())
    yield device_memory(service.device)
