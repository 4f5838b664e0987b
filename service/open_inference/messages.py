"""The protocol's messages, and how binary tensors are framed behind their JSON.

A body is JSON alone, or JSON of the length that the header `Inference-Header-Content-Length` says, followed by the
binary data of its tensors in their order. What is not understood is refused, never ignored: a misspelt parameter
would leave a part without its serial.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import BadInference, UploadTooLarge
from service.uploads import Label

LENGTH_HEADER = "Inference-Header-Content-Length"
MOST_JSON_BYTES = 2**22
MOST_JSON_LISTS = 2**18
"""The most bytes of a request's JSON, and lists and objects in it: pixels belong into the binary data behind it.

They bound the memory that it takes, and the time for which reading it keeps Python's other threads from running.
"""

Name = Annotated[str, Field(min_length=1, max_length=64)]
Datatype = Annotated[str, Field(min_length=1, max_length=16, examples=["BYTES", "UINT8"])]
Extent = Annotated[int, Field(ge=1, le=2**63 - 1)]
Size = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class InputParameters(_Request):
    """How an input's data is given."""

    binary_data_size: Annotated[Size | None, Field(description="bytes of its binary data behind the JSON")] = None
    content_type: Annotated[Literal["base64"] | None, Field(description="of pictures in JSON; may be left out")] = None


class InferenceInput(_Request):
    """One tensor of a request; its data is here or, if `binary_data_size` is given, behind the JSON."""

    name: Name
    datatype: Datatype
    shape: Annotated[list[Extent], Field(min_length=1, max_length=4)]
    parameters: InputParameters | None = None
    data: Annotated[list[Any] | None, Field(description="flat, or nested as the shape is; pictures in base64")] = None

    @property
    def binary_size(self) -> int | None:
        """How many bytes of binary data are its; None if its data is in JSON."""
        return None if self.parameters is None else self.parameters.binary_data_size


class OutputParameters(_Request):
    """How an output is wanted."""

    binary_data: Annotated[bool | None, Field(description="behind the JSON; overrides binary_data_output")] = None


class RequestedOutput(_Request):
    """One tensor that is wanted."""

    name: Name
    parameters: OutputParameters | None = None


class RequestParameters(_Request):
    """What holds for the whole request."""

    binary_data_output: Annotated[bool, Field(description="all outputs behind the JSON")] = False
    serial: Annotated[Label | None, Field(description="of the part; for one picture only")] = None
    station: Annotated[Label | None, Field(description="where the pictures were taken")] = None


class InferenceRequest(_Request):
    """Pictures to be inspected, and which outputs are wanted."""

    id: Annotated[str | None, Field(max_length=256, description="given back in the response")] = None
    parameters: RequestParameters | None = None
    inputs: Annotated[list[InferenceInput], Field(min_length=1, max_length=16)]
    outputs: Annotated[list[RequestedOutput] | None, Field(max_length=16, description="all but the map if none")] = None

    @property
    def wishes(self) -> RequestParameters:
        """The request's parameters, whether or not it has any."""
        return self.parameters or RequestParameters()


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True)


class BinarySize(_Response):
    """Parameters of an output whose data is behind the JSON."""

    binary_data_size: int


class InferenceOutput(_Response):
    """One tensor of a response; its data is here or behind the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: BinarySize | None = None
    data: list[str] | list[float] | None = None


class InferenceResponse(_Response):
    """Verdicts on the pictures of a request, in their order."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferenceOutput]


@dataclass(frozen=True)
class Frame:
    """A request and the binary data of its inputs; None where an input's data is in JSON."""

    request: InferenceRequest
    binaries: tuple[memoryview | None, ...]


def read_frame(body: bytes, *, header_length: str | None) -> Frame:
    """A request's body -> its message; `header_length` is the value of `LENGTH_HEADER`.

    Raises BadInference or UploadTooLarge.
    """
    head, rest = _cut(body, header_length)
    request = _parse(head)
    binaries: list[memoryview | None] = []
    for each in request.inputs:
        size = each.binary_size
        if (size is None) == (each.data is None):
            raise BadInference(
                f"Input {each.name!r} has {'no data' if size is None else 'its data twice'}. Give either `data`, or "
                "the parameter `binary_data_size` and as many bytes behind the JSON."
            )
        if size is not None and size > len(rest):
            raise BadInference(f"Input {each.name!r} has {size} bytes of binary data, but {len(rest)} are left for it.")
        binaries.append(None if size is None else rest[:size])
        rest = rest[size or 0 :]
    if len(rest):
        raise BadInference(f"{len(rest)} bytes are left over behind the data of the last input.")
    return Frame(request, tuple(binaries))


def write_frame(response: InferenceResponse, binaries: Sequence[bytes]) -> tuple[bytes, int | None]:
    """The body of a response, and the value of its `LENGTH_HEADER`: None if it is JSON alone."""
    head = response.model_dump_json(exclude_none=True).encode()
    if not binaries:
        return head, None
    return b"".join([head, *binaries]), len(head)


def _cut(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON, and what lies behind it."""
    if header_length is None:
        return body, memoryview(b"")
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 20):
        raise BadInference(f"{LENGTH_HEADER} is {header_length[:40]!r}, which is no number of bytes.")
    length = int(header_length)
    if length > len(body):
        raise BadInference(f"{LENGTH_HEADER} is {length}, but the body has {len(body)} bytes only.")
    return body[:length], memoryview(body)[length:]


def _parse(head: bytes) -> InferenceRequest:
    if len(head) > MOST_JSON_BYTES:
        raise UploadTooLarge(
            f"The JSON has {len(head):,} bytes, and at most {MOST_JSON_BYTES:,} are read. Send pictures as binary data "
            f"behind it ({LENGTH_HEADER})."
        )
    lists = head.count(b"[") + head.count(b"{")
    if lists > MOST_JSON_LISTS:
        raise BadInference(
            f"The JSON holds up to {lists} lists, and at most {MOST_JSON_LISTS} are read. Send the tensors as binary "
            "data, or at least flat."
        )
    try:
        # Not pydantic's own parser: on nested lists it takes several times the memory.
        document = json.loads(head.decode(), parse_constant=_no_number)
    except RecursionError:
        raise BadInference("The request is nested too deeply. Send its tensors flat, or as binary data.") from None
    except ValueError as error:
        raise BadInference(
            f"The request is not JSON ({error}). With binary data behind it, say its length in {LENGTH_HEADER}."
        ) from None
    try:
        return InferenceRequest.model_validate(document)
    except ValidationError as error:
        flaws = error.errors(include_input=False, include_url=False)
        said = [f"{'.'.join(map(str, flaw['loc'])) or 'request'}: {flaw['msg']}" for flaw in flaws[:3]]
        raise BadInference(f"The request is malformed: {'; '.join(said)}.") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
