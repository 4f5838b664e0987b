"""What an administrator changes about a category: which version judges, and where it fails."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from anyio import to_thread
from fastapi import APIRouter, Request

from service.access.needs import Acting, needs
from service.access.principal import Principal
from service.json_body import described, read_json
from service.problems import documented
from service.registry import changes
from service.registry.changes import Author
from service.request_id import request_id
from service.routes.categories import shown, threshold_of
from service.schemas.categories import Category, Threshold, WishedThreshold, WishedVersion
from service.state import Running, Service
from service.threshold_words import doubt

router = APIRouter(prefix="/v1/categories", tags=["categories"], dependencies=[needs("admin")])

Made = TypeVar("Made")

_REFUSALS = documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)
_CONFLICT = documented(HTTPStatus.CONFLICT)
_BODY = documented(HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


@router.post("/{category}/activate", responses=_REFUSALS | _CONFLICT | _BODY, openapi_extra=described(WishedVersion))
async def activate(category: str, request: Request, service: Running, principal: Acting) -> Category:
    """Let another version judge from now on. It is loaded first; no part that is in hand fails."""
    wished = await read_json(request, WishedVersion, gate=service.inspector.gate)
    change = partial(changes.activate, service.registry, category, wished.version)
    return shown(request, service.registry, await _made(change, request, service, principal))


@router.post("/{category}/rollback", responses=_REFUSALS | _CONFLICT)
async def roll_back(category: str, request: Request, service: Running, principal: Acting) -> Category:
    """Let the version judge that was active before the present one. Twice: the one before that."""
    change = partial(changes.roll_back, service.registry, category)
    return shown(request, service.registry, await _made(change, request, service, principal))


@router.put("/{category}/threshold", responses=_REFUSALS | _CONFLICT | _BODY, openapi_extra=described(WishedThreshold))
async def set_threshold(category: str, request: Request, service: Running, principal: Acting) -> Threshold:
    """Let the active version fail at another score, from the next part on."""
    wished = await read_json(request, WishedThreshold, gate=service.inspector.gate)
    registry, version = service.registry, wished.version
    if wished.value is None:
        assert wished.false_reject_rate is not None  # one of them is there
        by_rate = partial(changes.set_false_reject_rate, registry, category, wished.false_reject_rate, version=version)
        return threshold_of(await _made(by_rate, request, service, principal))
    by_value = partial(changes.set_threshold, registry, category, wished.value, version=version)
    entry, calibration = await _made(by_value, request, service, principal)
    return threshold_of(entry).model_copy(update={"warning": doubt(wished.value, calibration)})


@router.delete("/{category}/threshold", responses=_REFUSALS)
async def reset_threshold(category: str, request: Request, service: Running, principal: Acting) -> Threshold:
    """Let the active version fail at its artifact's own threshold again."""
    entry = await _made(partial(changes.reset_threshold, service.registry, category), request, service, principal)
    return threshold_of(entry)


async def _made(change: Callable[..., Made], request: Request, service: Service, principal: Principal) -> Made:
    """What has come of a change, made in a thread in the name of whoever asks."""
    author = Author(principal.name, request_id(request.scope))
    return await to_thread.run_sync(partial(change, author=author), limiter=service.changing)
