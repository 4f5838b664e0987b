"""Errors in the protocol's form, for everything under /v2 but the probes, which have problem documents.

Its clients read `error` of any answer that is not a 200, so whatever fails there must have this form: unknown paths
and unexpected failures too. Statuses are those of the problem document that another route would answer.
"""

from http import HTTPStatus
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from service.response_headers import headers_with

MEDIA_TYPE = "application/json"
_PREFIX = "/v2"
_PROBES = "/v2/health/"


class InferenceError(BaseModel):
    """Why there is no result, and what to do."""

    model_config = ConfigDict(frozen=True)

    error: Annotated[str, Field(examples=["There is no category 'plate'."])]


def speaks_protocol(request: Request) -> bool:
    """Whether whoever sent this request expects errors in the protocol's form."""
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    return (path == _PREFIX or path.startswith(f"{_PREFIX}/")) and not path.startswith(_PROBES)


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route: these statuses, and the 500 that any may end with, in the protocol's form."""
    return {
        int(status): {"model": InferenceError, "description": status.phrase} | headers_with(status)
        for status in (*statuses, HTTPStatus.INTERNAL_SERVER_ERROR)
    }
