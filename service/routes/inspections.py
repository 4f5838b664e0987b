"""Inspecting a part, and looking at inspections afterwards."""

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response

from models.heatmaps import encode_png, render
from models.images import decode
from service import maps
from service.access.needs import needs
from service.asking import inspection_request
from service.errors import ImageNotKept
from service.idempotency import ONE_KEY, IdempotencyKey
from service.presentation import present
from service.problems import documented
from service.query_parameters import ONLY_KNOWN
from service.response_headers import OF_AN_INSPECTION
from service.schemas.inspections import Inspection
from service.state import Running, Service
from service.storage.inspections import Record
from service.uploads import LABEL, Label, read_upload

router = APIRouter(prefix="/v1", tags=["inspections"])

Responses = dict[int | str, dict[str, Any]]
Style = Literal["overlay", "heat", "mask", "raw"]

_READ = [needs("read")]
_BYTES: dict[str, Any] = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
_UPLOAD: dict[str, Any] = {
    "required": True,
    "description": "The picture (JPEG, PNG, BMP, TIFF or WebP), told by its content and not by its media type; "
    "or a form with the picture in the file field `image`.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {
                    "image": _BYTES["schema"],
                    "serial": LABEL.json_schema(),
                    "station": LABEL.json_schema(),
                },
            }
        },
        **{f"image/{name}": _BYTES for name in ("jpeg", "png", "bmp", "tiff", "webp")},
        "application/octet-stream": _BYTES,
    },
}
_REFUSALS = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_UNKNOWN = documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)
_JUDGED: Responses = {201: {"headers": OF_AN_INSPECTION}}
_GONE = documented(HTTPStatus.GONE)
_PICTURE: Responses = {200: {"description": "The picture", "content": {"image/*": _BYTES}}}
_DRAWING: Responses = {
    200: {
        "description": "A PNG of the picture's size; for `raw`, a NumPy file (.npy, float16) on the map's grid",
        "content": {"image/png": _BYTES, "application/octet-stream": _BYTES},
        "headers": {"X-Map-Shape": {"description": "height,width of `raw`", "schema": {"type": "string"}}},
    }
}


@router.post(
    "/categories/{category}/inspections",
    status_code=HTTPStatus.CREATED,
    dependencies=[needs("inspect"), ONE_KEY, ONLY_KNOWN],  # a misspelled `seral` must not lose a serial
    responses=_REFUSALS | _JUDGED,
    openapi_extra={"requestBody": _UPLOAD},
)
async def inspect(
    category: str,
    request: Request,
    response: Response,
    service: Running,
    serial: Annotated[Label | None, Query(description="of the part")] = None,
    station: Annotated[Label | None, Query(description="where it was seen")] = None,
    timeout_ms: Annotated[float | None, Query(gt=0, le=600_000, description="no answer is of use after that")] = None,
    idempotency_key: Annotated[
        IdempotencyKey | None,
        Header(description="the sender's name for this request: sent again, it is answered as it was the first time"),
    ] = None,
) -> Inspection:
    """Judge one picture of one part. The inspection has been stored when it is answered."""
    limit = service.settings.max_body_bytes
    read = partial(read_upload, request, serial=serial, station=station, limit=limit)
    asked = inspection_request(request, service, timeout_ms=timeout_ms, idempotency_key=idempotency_key)
    record, replayed = await service.inspector.inspect(category, read, asked)
    inspection = present(request, record)
    response.headers["Location"] = inspection.links.self
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return inspection


@router.get("/inspections/{id}", responses=_UNKNOWN, dependencies=_READ)
async def show_inspection(id: UUID, request: Request, service: Running) -> Inspection:
    """An inspection as it was answered."""
    record = await to_thread.run_sync(service.inspections.find, id, limiter=service.reading)
    return present(request, record)


@router.get(
    "/inspections/{id}/heatmap", response_class=Response, responses=_DRAWING | _UNKNOWN | _GONE, dependencies=_READ
)
async def show_heatmap(
    id: UUID,
    service: Running,
    style: Annotated[Style, Query(description="overlay needs the picture; the others do not")] = "overlay",
) -> Response:
    """Where the part differs from good ones: drawn over its picture, as colours, as a mask, or as numbers."""
    return await to_thread.run_sync(_heatmap, service, id, style, limiter=service.drawing)


@router.get(
    "/inspections/{id}/image", response_class=Response, responses=_PICTURE | _UNKNOWN | _GONE, dependencies=_READ
)
async def show_image(id: UUID, service: Running) -> Response:
    """The picture, byte for byte as it was uploaded."""
    return await to_thread.run_sync(_image, service, id, limiter=service.reading)


def _heatmap(service: Service, key: UUID, style: Style) -> Response:
    record = service.inspections.find(key)
    packed = service.inspections.score_map(key)
    if style == "raw":
        shape = {"X-Map-Shape": f"{packed.shape[0]},{packed.shape[1]}"}
        return Response(maps.to_npy(packed), headers=shape, media_type="application/octet-stream")
    manifest = service.artifacts.manifest(record.category, record.version)
    image = None
    if style == "overlay":
        image = decode(_picture(service, record), max_pixels=record.width * record.height)
    drawn = render(
        style,
        packed.astype(np.float32),
        record.threshold,
        manifest.detector.preprocess,
        size=(record.height, record.width),
        image=image,
        pixel_threshold=manifest.threshold.pixel,
    )
    return Response(encode_png(drawn), media_type="image/png")


def _image(service: Service, key: UUID) -> Response:
    record = service.inspections.find(key)
    name = f"{record.id}.{record.image_media_type.removeprefix('image/')}"
    return Response(
        _picture(service, record),
        media_type=record.image_media_type,
        headers={"Content-Disposition": f'inline; filename="{name}"'},
    )


def _picture(service: Service, record: Record) -> bytes:
    if not record.image_kept:
        raise ImageNotKept(
            f"The picture of inspection {record.id} was not kept, by the policy in force then. Its map was: "
            "the heatmap styles heat, mask and raw can be had (style=heat)."
        )
    return service.pictures.fetch(record.image_sha256)
