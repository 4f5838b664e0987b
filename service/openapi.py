"""The OpenAPI document: FastAPI's own, with errors under the media type that they are sent in.

Operations that need a scope get the answers of who lacks it, and say which scopes do (OpenAPI 3.1 lists them as roles).
"""

from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from service.problems import MEDIA_TYPE

_PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_WORD = {"type": "string"}
# Status -> what it says here, and the headers that come with it.
_REFUSALS = {
    HTTPStatus.UNAUTHORIZED: ("No API key, or none that is accepted", {"WWW-Authenticate": {"schema": _WORD}}),
    HTTPStatus.FORBIDDEN: ("The API key lacks the scope that this needs", {}),
    HTTPStatus.TOO_MANY_REQUESTS: (
        "The API key has asked too often",
        {"Retry-After": {"description": "seconds", "schema": _WORD}},
    ),
}


def install(app: FastAPI) -> None:
    """Replace the application's `openapi()`."""
    app.openapi = partial(_document, app, app.openapi)  # type: ignore[method-assign]


def _document(app: FastAPI, generate: Any) -> dict[str, Any]:
    if app.openapi_schema is not None:
        return app.openapi_schema
    document: dict[str, Any] = generate()
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    response["content"] = {MEDIA_TYPE: response["content"].pop("application/json")}
            if "security" in operation:
                _tell_access(operation)
    return document


def _tell_access(operation: dict[str, Any]) -> None:
    scopes = sorted({scope for way in operation["security"] for roles in way.values() for scope in roles})
    if "admin" in scopes:  # a router's needs and a route's
        scopes = ["admin"]
    # Each way to send a key, with each of the scopes that will do.
    operation["security"] = [{name: [scope]} for way in operation["security"] for name in way for scope in scopes]
    said = operation.get("description", "")
    operation["description"] = f"{said}\n\nNeeds the scope {' or '.join(f'`{scope}`' for scope in scopes)}.".strip()
    responses = operation["responses"]
    # The Open Inference Protocol has a form of its own for errors.
    form = next((each["content"] for status, each in responses.items() if int(status) >= 400), _PROBLEM)
    for status, (description, headers) in _REFUSALS.items():
        responses.setdefault(str(int(status)), {"description": description, "headers": headers, "content": form})
