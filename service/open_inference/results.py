"""Committed inspections -> the tensors that a request wants of them.

`verdict` is what counts: `score` and `threshold` are rounded to FP32, and may seem equal where they are not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from models.verdict import margin
from service.errors import BadInference
from service.open_inference.messages import (
    BinarySize,
    InferenceOutput,
    InferenceRequest,
    InferenceResponse,
    write_frame,
)
from service.open_inference.tensors import datatype_of, of_bytes, to_binary, to_json
from service.storage.inspections import Record

MAP = "map"

_OF_RECORDS: dict[str, tuple[str, Callable[[Record], float | str]]] = {
    "score": ("FP32", lambda record: record.score),
    "threshold": ("FP32", lambda record: record.threshold),
    "p_value": ("FP32", lambda record: record.p_value),
    "margin": ("FP32", lambda record: margin(record.score, record.threshold)),
    "verdict": ("BYTES", lambda record: record.verdict),
    "inspection_id": ("BYTES", lambda record: str(record.id)),
}
OUTPUTS: dict[str, tuple[str, int]] = {name: (kind, 1) for name, (kind, _) in _OF_RECORDS.items()} | {MAP: ("FP32", 3)}
"""Name -> datatype and number of dimensions, of which the first is n."""


@dataclass(frozen=True)
class Wanted:
    """What a response is made of besides its records: a request without its tensors, which are large."""

    id: str | None
    outputs: Mapping[str, bool]  # name -> whether as binary data, in the order of the response


def read_wanted(request: InferenceRequest) -> Wanted:
    """What a request wants to be answered. Raises BadInference for an output that there is not."""
    binary = request.wishes.binary_data_output
    if not request.outputs:
        return Wanted(request.id, {name: binary for name in OUTPUTS if name != MAP})
    outputs: dict[str, bool] = {}
    for each in request.outputs:
        if each.name not in OUTPUTS:
            raise BadInference(f"There is no output {each.name!r}. There are {', '.join(OUTPUTS)}.")
        if each.name in outputs:
            raise BadInference(f"Output {each.name!r} is wanted more than once.")
        own = None if each.parameters is None else each.parameters.binary_data
        outputs[each.name] = binary if own is None else own
    return Wanted(request.id, outputs)


def write_results(
    wanted: Wanted, records: Sequence[Record], score_map: Callable[[UUID], NDArray[np.float16]]
) -> tuple[bytes, int | None]:
    """The body of the response, and the length of its JSON if binary data follows; `score_map` gives (h, w) by id."""
    outputs: list[InferenceOutput] = []
    binaries: list[bytes] = []
    for name, binary in wanted.outputs.items():
        array = _maps(records, score_map) if name == MAP else _column(name, records)
        data = to_binary(array) if binary else None
        outputs.append(
            InferenceOutput(
                name=name,
                datatype=datatype_of(array),
                shape=list(array.shape),
                parameters=None if data is None else BinarySize(binary_data_size=len(data)),
                data=to_json(array) if data is None else None,
            )
        )
        binaries += [] if data is None else [data]
    response = InferenceResponse(
        model_name=records[0].category, model_version=records[0].version, id=wanted.id, outputs=outputs
    )
    return write_frame(response, binaries)


def _column(name: str, records: Sequence[Record]) -> NDArray[Any]:
    """One value a record, (n,)."""
    datatype, value = _OF_RECORDS[name]
    values = [value(record) for record in records]
    if datatype == "BYTES":
        return of_bytes([str(each).encode() for each in values], (len(values),))
    largest = np.finfo(np.float32).max  # a margin is a quotient, and JSON has no infinity
    return np.clip(np.array(values, np.float64), -largest, largest).astype(np.float32)


def _maps(records: Sequence[Record], score_map: Callable[[UUID], NDArray[np.float16]]) -> NDArray[np.float32]:
    """(n, h, w): one detector has one grid."""
    return np.stack([score_map(record.id) for record in records]).astype(np.float32)
