"""What the service says about itself and its categories, in the protocol's words: metadata and index."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.open_inference.parts import IMAGE, SERIAL, STATION
from service.open_inference.results import OUTPUTS
from service.registry.view import Entry

EXTENSIONS = ["binary_tensor_data"]
PLATFORM = "jigsight"


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)


class ServerMetadata(_Message):
    """The server, and which extensions of the protocol it has."""

    name: str
    version: str
    extensions: list[str]


class TensorParameters(_Message):
    """What the protocol itself cannot say of a tensor."""

    optional: bool = False
    by_default: Annotated[bool, Field(description="of outputs: in the response where none are named")] = True
    description: str


class TensorMetadata(_Message):
    """A tensor of a category; -1 is any extent, and the first is the number of pictures."""

    name: str
    datatype: str
    shape: list[int]
    parameters: TensorParameters | None = None


class ModelMetadata(_Message):
    """A category as a model."""

    name: str
    versions: Annotated[list[str], Field(description="that may be asked for: the active one")]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(_Message):
    """Parts of this category can be judged."""

    name: str
    ready: Literal[True] = True


class IndexRequest(_Message):
    """Which models the index lists."""

    ready: Annotated[bool, Field(description="only those that judge")] = False


class IndexEntry(_Message):
    """One version of one category."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


_INPUTS = [
    TensorMetadata(
        name=IMAGE,
        datatype="BYTES",
        shape=[-1],
        parameters=TensorParameters(
            description="picture files (JPEG, PNG, BMP, TIFF, WebP), in JSON as base64; or UINT8 [-1, -1, -1, 3] or "
            "[-1, -1, 3]: height, width, RGB"
        ),
    ),
    *(
        TensorMetadata(
            name=name, datatype="BYTES", shape=[-1], parameters=TensorParameters(optional=True, description=description)
        )
        for name, description in ((SERIAL, "of the parts, UTF-8"), (STATION, "where the pictures were taken, UTF-8"))
    ),
]
_MAP = TensorParameters(by_default=False, description="scores on the detector's own grid, as they are stored")
_OUTPUTS = [
    TensorMetadata(name=name, datatype=kind, shape=[-1] * dimensions, parameters=_MAP if dimensions > 1 else None)
    for name, (kind, dimensions) in OUTPUTS.items()
]


def model_metadata(entry: Entry) -> ModelMetadata:
    """The metadata of a category."""
    return ModelMetadata(
        name=entry.category,
        versions=[entry.version],
        platform=PLATFORM,
        inputs=_INPUTS,
        outputs=_OUTPUTS,
    )


def index(entries: Iterable[Entry], *, wanted: IndexRequest) -> list[IndexEntry]:
    """Every version of every category, or those that judge."""
    listed = [
        _index_entry(entry, version) for entry in entries for version in dict.fromkeys([*entry.versions, entry.version])
    ]
    return [each for each in listed if each.state == "READY" or not wanted.ready]


def _index_entry(entry: Entry, version: str) -> IndexEntry:
    reason = entry.problem or "" if version == entry.version else f"the active version is {entry.version}"
    return IndexEntry(name=entry.category, version=version, state="UNAVAILABLE" if reason else "READY", reason=reason)
