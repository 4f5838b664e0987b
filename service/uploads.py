"""A request to inspect -> the picture's bytes and what is known about the part.

The body is either the picture itself, whatever its content type says, or a multipart form with one file field
`image`. What kind of picture it is, is found from its bytes later.
"""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, StringConstraints, TypeAdapter, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import BadForm, EncodedBody, NoImage

# Any characters but controls and line ends: part serials are free text in many factories. Bytes that are no UTF-8
# arrive as U+FFFD, all alike, so that two parts would become one.
_PATTERN = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\ufffd]+$"


def _printable(text: str) -> str:
    if re.fullmatch(_PATTERN[1:-1], text) is None:
        raise PydanticCustomError(
            "label",
            "{text} is no label: no control characters or line ends, and nothing that is not UTF-8",
            {"text": ascii(text)},
        )
    return text


Label = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128),
    AfterValidator(_printable),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 128, "pattern": _PATTERN}),
]
LABEL: TypeAdapter[str] = TypeAdapter(Label)
_LONGEST_FIELD = 4096  # bytes
_MOST_FIELDS = 16
_FIELDS = {"image", "serial", "station"}


@dataclass(frozen=True)
class Upload:
    """A picture as it came, and what it shows according to its sender."""

    data: bytes
    serial: str | None
    station: str | None


async def read_upload(request: Request, *, serial: str | None, station: str | None, limit: int) -> Upload:
    """Read the body; `serial` and `station` come from the query. Raises NoImage, BadForm or EncodedBody.

    `limit` is the most bytes that a body may have: uploads up to it stay in memory.
    """
    refuse_encoded(request)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "multipart/form-data":
        data = await request.body()
        if not data:
            raise NoImage(
                "The body is empty. Send the picture itself as the body, or a multipart form with a file field `image`."
            )
        return Upload(data, serial, station)
    form = await _read_form(request, limit)
    try:
        return Upload(
            await _image(form),
            _label(form, "serial", in_query=serial),
            _label(form, "station", in_query=station),
        )
    finally:
        await form.close()


def refuse_encoded(request: Request) -> None:
    """Raise EncodedBody for a compressed body, which a few bytes can make a large one."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise EncodedBody(f"The body is encoded as {encoding!r}. Send it as it is: pictures are compressed already.")


class _Form(MultiPartParser):
    """Starlette's parser, which takes a form that was cut off for one that has ended."""

    complete = False

    def on_end(self) -> None:
        self.complete = True

    def drop(self) -> None:
        """Close what was begun; of a part that was cut off nobody else knows."""
        for file in getattr(self, "_files_to_close_on_error", []):
            file.close()


async def _read_form(request: Request, limit: int) -> FormData:
    parser = _Form(
        request.headers, request.stream(), max_files=1, max_fields=_MOST_FIELDS, max_part_size=_LONGEST_FIELD
    )
    parser.spool_max_size = limit + 1  # the default writes larger files to the disk, which may be read-only
    try:
        form = await parser.parse()
        if not parser.complete:
            parser.drop()
            raise MultiPartException("it was cut off, or its boundary is not the one in its content type")
        return form
    except MultiPartException as error:
        raise _unreadable(error.message.rstrip(".")) from None
    except (UnicodeError, LookupError):
        raise _unreadable("its charset is not what it is written in, or none that is known; use UTF-8") from None


def _unreadable(why: str) -> BadForm:
    return BadForm(
        f"The multipart form cannot be read: {why}. Send one file field `image`, with a file name, and if you like the "
        "text fields `serial` and `station`."
    )


async def _image(form: FormData) -> bytes:
    file = form.get("image")
    if not isinstance(file, UploadFile):
        found = ", ".join(sorted(set(form))) or "none"
        raise NoImage(f"The form has no file field `image` (its fields: {found}). Send the picture in one.")
    unknown = sorted(set(form) - _FIELDS)
    if unknown:  # a misspelled `seral` must not lose a serial
        raise BadForm(f"The form has a field {unknown[0]!r}; it may have `image`, `serial` and `station` alone.")
    data = await file.read()
    if not data:
        raise NoImage("The form's file `image` is empty (0 bytes). Send the bytes of a picture file.")
    return data


def _label(form: FormData, name: str, *, in_query: str | None) -> str | None:
    values = form.getlist(name)
    if not values:
        return in_query
    if in_query is not None or len(values) > 1:
        raise BadForm(f"`{name}` is given more than once. Give it in the query or in the form, once.")
    try:
        return LABEL.validate_python(values[0])
    except ValidationError as error:
        flaws = [{"loc": ("body", name), "msg": flaw["msg"]} for flaw in error.errors()]
        raise RequestValidationError(flaws) from None
