"""The Open Inference Protocol v2: categories are its models, and artifact versions their versions.

Whatever is inferred is an inspection like any other: judged and committed by the inspector before it is answered.
Only the active version of a category judges, so no other can be asked for.
"""

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Request, Response

from service.access.needs import needs
from service.asking import inspection_request
from service.errors import ArtifactUnavailable, BadInference, EngineStopped, VersionNotActive
from service.json_body import described_if_any, read_json_if_any
from service.open_inference.messages import (
    LENGTH_HEADER,
    InferenceRequest,
    InferenceResponse,
    read_frame,
)
from service.open_inference.metadata import (
    EXTENSIONS,
    IndexEntry,
    IndexRequest,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
    index,
    model_metadata,
)
from service.open_inference.parts import read_parts
from service.open_inference.refusals import documented
from service.open_inference.results import Wanted, read_wanted, write_results
from service.openapi import REFERENCES
from service.registry.view import Entry
from service.state import Running, Service
from service.uploads import Upload, refuse_encoded

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

_LOOK = [needs("read", "inspect")]
_UNKNOWN = documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)
_NOT_READY = _UNKNOWN | documented(HTTPStatus.SERVICE_UNAVAILABLE)
_INDEX = documented(
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_REFUSALS = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_FRAMED: dict[str, Any] = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
_HEADER = {"description": "bytes of the JSON, if binary data follows it", "schema": {"type": "string"}}
_HeaderLength = Annotated[str | None, Header(alias=LENGTH_HEADER, description=_HEADER["description"])]
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "model": InferenceResponse,
        "description": "JSON, or JSON and the binary data of its outputs",
        "content": {"application/octet-stream": _FRAMED},
        "headers": {LENGTH_HEADER: _HEADER},
    }
}
_INFER: dict[str, Any] = {
    "dependencies": [needs("inspect")],
    "response_class": Response,
    "responses": _ANSWER | _REFUSALS,
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "description": f"JSON, or JSON of the length in the header {LENGTH_HEADER} and binary data behind it",
            "content": {
                "application/json": {"schema": InferenceRequest.model_json_schema(ref_template=REFERENCES)},
                "application/octet-stream": _FRAMED,
            },
        }
    },
}


@router.get("", responses=documented())
async def show_server(request: Request) -> ServerMetadata:
    """The server and its extensions of the protocol."""
    return ServerMetadata(name="jigsight", version=request.app.version, extensions=EXTENSIONS)


@router.post("/repository/index", responses=_INDEX, dependencies=_LOOK, openapi_extra=described_if_any(IndexRequest))
async def list_models(request: Request, service: Running) -> list[IndexEntry]:
    """Every category and its versions."""
    wanted = await read_json_if_any(request, IndexRequest, gate=service.inspector.gate)
    return index(service.registry.entries.values(), wanted=wanted or IndexRequest())


@router.get("/models/{model}", responses=_UNKNOWN, dependencies=_LOOK, response_model_exclude_none=True)
async def show_model(model: str, service: Running) -> ModelMetadata:
    """The inputs and outputs of a category."""
    return model_metadata(_entry(service, model))


@router.get(
    "/models/{model}/versions/{version}", responses=_UNKNOWN, dependencies=_LOOK, response_model_exclude_none=True
)
async def show_model_version(model: str, version: str, service: Running) -> ModelMetadata:
    """The same, if this version is the active one."""
    return model_metadata(_entry(service, model, version))


@router.get("/models/{model}/ready", responses=_NOT_READY, dependencies=_LOOK)
async def model_ready(model: str, service: Running) -> ModelReady:
    """Whether parts of this category can be judged."""
    return _ready(service, _entry(service, model))


@router.get("/models/{model}/versions/{version}/ready", responses=_NOT_READY, dependencies=_LOOK)
async def model_version_ready(model: str, version: str, service: Running) -> ModelReady:
    """Whether parts of this category can be judged, and by this version."""
    return _ready(service, _entry(service, model, version))


@router.post("/models/{model}/infer", **_INFER)
async def infer(model: str, request: Request, service: Running, header_length: _HeaderLength = None) -> Response:
    """Judge pictures of parts. The inspections have been stored when they are answered."""
    return await _infer(request, service, _entry(service, model).category, None, header_length)


@router.post("/models/{model}/versions/{version}/infer", **_INFER)
async def infer_version(
    model: str, version: str, request: Request, service: Running, header_length: _HeaderLength = None
) -> Response:
    """Judge pictures of parts, if this version is the active one."""
    return await _infer(request, service, _entry(service, model, version).category, version, header_length)


def _entry(service: Service, model: str, version: str | None = None) -> Entry:
    entry = service.registry.entry(model)
    if version not in (None, entry.version):
        raise VersionNotActive(model, str(version), active=entry.version)
    return entry


def _ready(service: Service, entry: Entry) -> ModelReady:
    if not service.engine.alive:
        raise EngineStopped("The engine takes no parts.")
    if service.registry.loaded(entry.category) is None and (problem := service.registry.problem(entry.category)):
        raise ArtifactUnavailable(problem)
    return ModelReady(name=entry.category)


async def _infer(
    request: Request, service: Service, category: str, version: str | None, header_length: str | None
) -> Response:
    asked = inspection_request(request, service)
    _refuse_idempotency(request)
    wanted, uploads = await _read(request, service, category, header_length)
    service.guard.charge(request.state.principal, len(uploads) - 1)  # a rate is one of pictures
    records = await service.inspector.inspect_all(category, uploads, asked, version=version)
    answer = partial(write_results, wanted, records, service.inspections.score_map)
    content, length = await to_thread.run_sync(answer, limiter=service.reading)
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, headers={LENGTH_HEADER: str(length)}, media_type="application/octet-stream")


def _refuse_idempotency(request: Request) -> None:
    """An Idempotency-Key that is ignored would have parts inspected twice by whoever relies on it."""
    if "idempotency-key" in request.headers:
        raise BadInference(
            "An Idempotency-Key cannot be kept here, where a request may hold many parts. Send each part to "
            "POST /v1/categories/{category}/inspections with a key of its own, or leave the header away."
        )


async def _read(
    request: Request, service: Service, category: str, header_length: str | None
) -> tuple[Wanted, list[Upload]]:
    """What is wanted and the parts; there must be a place for them, as for any upload, before the body is read."""
    refuse_encoded(request)
    with service.engine.admit(category):
        async with service.inspector.gate.enter():
            body = await request.body()
        understand = partial(_understand, service, body, header_length)
        return await to_thread.run_sync(understand, limiter=service.inspector.decoding)


def _understand(service: Service, body: bytes, header_length: str | None) -> tuple[Wanted, list[Upload]]:
    """Whatever is wrong with a request is refused here, before anything is judged."""
    frame = read_frame(body, header_length=header_length)
    wanted = read_wanted(frame.request)
    settings = service.settings
    return wanted, read_parts(frame, limit=settings.queue_limit, max_pixels=settings.max_pixels)
