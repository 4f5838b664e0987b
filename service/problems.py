"""Errors as RFC 9457 problem documents, or in the Open Inference Protocol's form: the only exception handler.

What is a known error says itself what was wrong and what to do. Anything else is logged with its traceback
and answered with a 500 that tells no internals. No problem ever carries a verdict.
"""

import logging
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import JigSightError
from service.errors import STATUSES, ServiceError
from service.open_inference import refusals
from service.request_id import request_id
from service.response_headers import headers_with

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
PROBLEM = "jigsight.problem"  # where the scope of a request says what kind of problem it was answered with


class Flaw(BaseModel):
    """One part of a request that is not as it must be."""

    where: Annotated[str, Field(examples=["query.serial"])]
    what: str


class Problem(BaseModel):
    """Why there is no result, and what to do (RFC 9457)."""

    model_config = ConfigDict(frozen=True)

    type: Annotated[str, Field(examples=["urn:jigsight:problem:unknown-category"])]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    instance: Annotated[str, Field(description="the path that was asked for")]
    request_id: Annotated[str, Field(description="also in the header X-Request-ID and in the service's log")]
    errors: list[Flaw] = []


def install(app: FastAPI) -> None:
    """Make every error that leaves a route a problem document."""
    for kind in (JigSightError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)


async def answer(request: Request, error: Exception) -> Response:
    """The problem document for any exception, or what the clients of another protocol read instead."""
    status, name, detail = _describe(request, error)
    request.scope[PROBLEM] = name
    headers: dict[str, str] = {}
    if isinstance(error, HTTPException):
        headers.update(error.headers or {})
    if isinstance(error, ServiceError) and error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status == HTTPStatus.REQUEST_TIMEOUT:
        headers["Connection"] = "close"  # the rest of the body is not waited for
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log(request, error, status)
    if refusals.speaks_protocol(request):
        refusal = refusals.InferenceError(error=detail)
        return Response(refusal.model_dump_json(), status, headers, refusals.MEDIA_TYPE)
    problem = Problem(
        type=f"urn:jigsight:problem:{name}",
        title=status.phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        request_id=request_id(request.scope),
        errors=_flaws(error.errors()) if isinstance(error, RequestValidationError) else [],
    )
    return Response(problem.model_dump_json(), status, headers, MEDIA_TYPE)


def _describe(request: Request, error: Exception) -> tuple[HTTPStatus, str, str]:
    """Status, kind and sentence."""
    if isinstance(error, JigSightError):
        return _status(error), _kebab(type(error).__name__), str(error)
    if isinstance(error, RequestValidationError):
        sentence = "; ".join(f"{flaw.where}: {flaw.what}" for flaw in _flaws(error.errors()))
        return HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", f"The request is malformed: {sentence}."
    if isinstance(error, HTTPException):
        status = HTTPStatus(error.status_code)
        return status, _kebab(status.name.title().replace("_", "")), _sentence(request, error, status)
    detail = "The service failed on this request: there is no result. Its log says more under this id."
    return HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", detail


def _status(error: JigSightError) -> HTTPStatus:
    if isinstance(error, ServiceError):
        return error.status
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), HTTPStatus(500))


def _sentence(request: Request, error: HTTPException, status: HTTPStatus) -> str:
    if status == HTTPStatus.NOT_FOUND:
        return f"There is nothing at {request.url.path}. What there is, is listed at /docs."
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("allow") or (error.headers or {}).get("Allow", "other methods")
        return f"{request.method} is not possible at {request.url.path}; it takes {allowed}."
    return str(error.detail)


def _flaws(errors: Any) -> list[Flaw]:
    return [Flaw(where=".".join(str(part) for part in each["loc"]), what=str(each["msg"])) for each in errors]


def _kebab(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


def _log(request: Request, error: Exception, status: HTTPStatus) -> None:
    # A failure that we raised on purpose is told by its sentence, unless something else lies behind it.
    expected = isinstance(error, JigSightError | HTTPException) and error.__cause__ is None
    logger.log(
        logging.WARNING if expected and status == HTTPStatus.SERVICE_UNAVAILABLE else logging.ERROR,
        "%s %s -> %d: %s",
        request.method,
        request.url.path,
        status,
        error,
        exc_info=None if expected else error,
    )


class UnexpectedErrors:
    """Pure ASGI: whatever no handler knows becomes a 500 problem, inside the request-id middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer for it if that fails before a response has begun."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def watch(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except ClientDisconnect:
            logger.info("the client went away before it was answered")
        except Exception as error:
            if begun:
                raise
            response = await answer(Request(scope), error)
            await response(scope, receive, send)


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route: these statuses, and the 500 that any may end with, as problem documents."""
    return {
        int(status): {"model": Problem, "description": status.phrase} | headers_with(status)
        for status in (*statuses, HTTPStatus.INTERNAL_SERVER_ERROR)
    }
