"""The OpenAPI document: FastAPI's own, with errors under the media type that they are sent in."""

from functools import partial
from typing import Any

from fastapi import FastAPI

from service.access.described import describe
from service.problems import MEDIA_TYPE


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
            describe(operation)
    return document
