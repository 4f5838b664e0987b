"""Probes, at the paths of the Open Inference Protocol v2."""

from http import HTTPStatus

from anyio import to_thread
from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError

from service import disk
from service.errors import EngineStopped, NotReady, StoreUnavailable
from service.problems import documented
from service.readiness import ailments
from service.schemas.health import Live, Ready
from service.state import Running, Service

router = APIRouter(prefix="/v2/health", tags=["health"])


@router.get("/live", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
async def live(service: Running) -> Live:
    """Whether the process is of any use; 503 if only starting it anew helps."""
    if service.engine.died or service.writer.died:
        raise EngineStopped("A thread has died, and nothing is judged until this process is started anew.")
    return Live()


@router.get("/ready", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
async def ready(service: Running) -> Ready:
    """Whether parts can be judged; 503 with the reasons if not."""
    reasons = await to_thread.run_sync(_reasons, service, limiter=service.probing)
    if reasons:
        raise NotReady("Not ready: " + "; ".join(reasons) + ".")
    return Ready()


def _reasons(service: Service) -> list[str]:
    reasons = ailments(service)
    try:
        service.database.ping()
    except (StoreUnavailable, SQLAlchemyError):  # tables that are missing, rights that were taken away
        reasons.append("the database does not answer")
    if (problem := disk.ailment(service.settings)) is not None:
        reasons.append(problem)
    return reasons
