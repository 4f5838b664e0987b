"""Small bodies of JSON: what administrators wish, and what an index is to list.

A route reads them itself, in its function, because whatever FastAPI reads for a route it reads and parses before the
route's `needs` have let anybody in. Any content type will do.
"""

from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from service.errors import UploadTooLarge
from service.openapi import REFERENCES
from service.upload_gate import UploadGate

MOST_BYTES = 4096

Body = TypeVar("Body", bound=BaseModel)


async def read_json(request: Request, model: type[Body], *, gate: UploadGate) -> Body:
    """The body as this model, come in through the gate of the uploads.

    Raises RequestValidationError, UploadTooLarge, TooManyUploads or UploadTooSlow.
    """
    return _parsed(await _read(request, gate), model)


async def read_json_if_any(request: Request, model: type[Body], *, gate: UploadGate) -> Body | None:
    """The same; None if the body is empty, or null."""
    body = await _read(request, gate)
    return None if body.strip() in (b"", b"null") else _parsed(body, model)


def described(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra=` of a route that reads this model."""
    return {"requestBody": {"required": True, "content": _content(model)}}


def described_if_any(model: type[BaseModel]) -> dict[str, Any]:
    """The same of a route that can do without."""
    content = _content(model)
    schema = content["application/json"]["schema"]
    schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"type": "null"}]
    return {"requestBody": {"content": content}}


def _content(model: type[BaseModel]) -> dict[str, Any]:
    references, definitions = models_json_schema([(model, "validation")], ref_template=REFERENCES)
    return {"application/json": {"schema": {**references[model, "validation"], **definitions}}}


async def _read(request: Request, gate: UploadGate) -> bytes:
    body = bytearray()
    async with gate.enter():
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BYTES:
                raise UploadTooLarge(f"The body is too large: of this JSON at most {MOST_BYTES:,} bytes are taken.")
    return bytes(body)


def _parsed(body: bytes, model: type[Body]) -> Body:
    if not body.strip():
        raise _refusal("it is missing; send JSON, with `Content-Type: application/json`")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        flaws = error.errors(include_url=False, include_context=False, include_input=False)
    if any("recursion" in flaw["msg"] for flaw in flaws):
        raise _refusal("its JSON is nested too deeply; what is wished here is one flat object")
    raise RequestValidationError([{"loc": ("body", *flaw["loc"]), "msg": flaw["msg"]} for flaw in flaws])


def _refusal(what: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("body",), "msg": what}])
