"""A safetensors file, read once from its beginning to its end: what was checked is what is used.

safetensors' own `safe_open` gives views of the mapped file: whoever overwrites the file then changes a detector that
was verified, and whoever cuts it off kills the process. Here every tensor has memory of its own, and the hash is of
the very bytes that went into it. What the header claims is checked before anybody allocates for it
(docs/artifact.md, "Framing"); faults are ArtifactErrors without the file's name.
"""

import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.errors import ArtifactError

DTYPES = {"F32": torch.float32, "F16": torch.float16, "I64": torch.int64, "I8": torch.int8, "U8": torch.uint8}
DTYPES |= {"BOOL": torch.bool}
COPY = "Copy it again, under its own name, from where it was trained."

_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
_BYTES |= {"I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8}
_MAX_HEADER_BYTES = 16 * 2**20
_MAX_DIMENSIONS = 8
_MAX_EXTENT = 2**63 - 1
_PIECE = 2**20  # bytes


@dataclass(frozen=True)
class Place:
    """Where a tensor lies, in bytes after the header, and what it is."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """An open file whose header holds together. Made by `open_tensors`.

    `metadata` are the header's strings, `places` its tensors in the order in which they lie.
    """

    def __init__(
        self, file: io.BufferedReader, header: bytes, places: Mapping[str, Place], metadata: Mapping[str, str]
    ) -> None:
        self.places = places
        self.metadata = metadata
        self._file = file
        self._header = header

    def digest(self) -> str:
        """The SHA-256 of the whole file, in hexadecimal digits; nothing is kept."""
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()

    def tensors(self, wished: Mapping[str, torch.dtype]) -> tuple[dict[str, Tensor], str]:
        """All tensors, in the wished types where one is named, and the SHA-256 of what was read.

        The types in the file must be among `DTYPES`. Not to be used before the digest is known to be right.
        """
        self._file.seek(len(self._header))
        digest = hashlib.sha256(self._header)
        found = {}
        for name, place in self.places.items():
            content = bytearray(place.end - place.begin)
            self._fill(content)
            digest.update(content)
            if place.dtype == "BOOL" and max(content, default=0) > 1:  # neither true nor false to torch
                raise damaged()
            tensor = _tensor(content, place)
            found[name] = tensor.to(wished.get(name, tensor.dtype))
        return found, digest.hexdigest()

    def _fill(self, content: bytearray) -> None:
        rest = memoryview(content)
        while rest:
            count = self._file.readinto(rest[:_PIECE])
            if not count:
                raise damaged()
            rest = rest[count:]


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Open a file and check its header. Raises ArtifactError or OSError."""
    if not path.is_file():
        raise ArtifactError("there is no such file.")
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        header = _header(file, size)
        metadata, places = _parse(header[8:])
        end = max((place.end for place in places.values()), default=0)
        if len(header) + end != size:
            raise damaged()
        yield TensorFile(file, header, places, metadata)


def damaged() -> ArtifactError:
    """The fault of a file that is not whole."""
    return ArtifactError(f"it is truncated or damaged. {COPY}")


def _header(file: io.BufferedReader, size: int) -> bytes:
    """The first 8 bytes and the header that they announce."""
    start = file.read(9)
    claimed = int.from_bytes(start[:8], "little")
    if len(start) < 9 or start[8:9] != b"{":
        raise ArtifactError("it is not a safetensors file; artifacts are made by `jigsight train`.")
    if claimed > _MAX_HEADER_BYTES:
        raise ArtifactError(f"its header claims {claimed:,} bytes; at most {_MAX_HEADER_BYTES:,} are read.")
    if 8 + claimed > size:
        raise ArtifactError(f"it is truncated: {size:,} bytes, and its header alone claims {claimed:,}. {COPY}")
    header = start[: 8 + claimed] + file.read(max(0, claimed - 1))
    if len(header) < 8 + claimed:  # it was cut off since
        raise damaged()
    return header


def _parse(text: bytes) -> tuple[dict[str, str], dict[str, Place]]:
    """The header's metadata, and its tensors, which follow one another without gap or overlap from byte 0."""
    try:
        document: Any = json.loads(text.decode(), object_pairs_hook=without_duplicates)
        metadata = document.pop("__metadata__", {})
        places = {name: _place(entry) for name, entry in document.items()}
        strings = all(isinstance(value, str) for value in metadata.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged() from error
    if not strings:
        raise damaged()
    places = dict(sorted(places.items(), key=lambda item: (item[1].begin, item[1].end)))
    last = 0
    for place in places.values():
        if place.begin != last:
            raise damaged()
        last = place.end
    return metadata, places


def _place(entry: dict[str, Any]) -> Place:
    """One entry of the header. Raises ValueError, KeyError or TypeError if it contradicts itself."""
    (begin, end), shape, dtype = entry["data_offsets"], tuple(entry["shape"]), entry["dtype"]
    if len(entry) != 3 or not all(type(number) is int and number >= 0 for number in (begin, end, *shape)):
        raise ValueError(entry)
    if len(shape) > _MAX_DIMENSIONS or max(shape, default=0) > _MAX_EXTENT:  # multiplying them would take minutes
        raise ValueError(entry)
    if end - begin != math.prod(shape) * _BYTES[dtype]:
        raise ValueError(entry)
    return Place(dtype, shape, begin, end)


def without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """For `json.loads`: readers of JSON differ in which of two equal keys they believe. Raises ValueError."""
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("an object names a key twice")
    return document


def _tensor(content: bytearray, place: Place) -> Tensor:
    dtype = DTYPES[place.dtype]
    if not content:  # frombuffer takes none that is empty
        return torch.empty(place.shape, dtype=dtype)
    return torch.frombuffer(content, dtype=dtype).reshape(place.shape)
