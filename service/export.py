"""Inspections as files: CSV (RFC 4180, UTF-8) for spreadsheets, NDJSON for programs; the same columns in both.

A spreadsheet takes a cell that begins with = or the like for a formula, and serials are free text: in the CSV such
texts get an apostrophe in front, as OWASP recommends against CSV injection. So does what begins like one behind a
separator within a text: where semicolons are the custom, programs split there. NDJSON holds every text as it is.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from models.verdict import margin
from service.storage.inspections import Record

COLUMNS = (
    "id",
    "created_at",
    "category",
    "version",
    "serial",
    "station",
    "verdict",
    "score",
    "threshold",
    "margin",
    "p_value",
    "region_count",
    "regions",
    "width",
    "height",
    "request_id",
    "submitted_by",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠")
_FORMULA_WITHIN = re.compile(r'([;|\t\r\n][\s"\0]*)(?=[=+\-@＝＋－＠])')  # a split takes quotes for its own


@dataclass(frozen=True)
class Format:
    """A kind of file: how it begins, and the bytes of some inspections in it."""

    suffix: str
    media_type: str
    head: bytes
    encode: Callable[[Sequence[Record]], bytes]


def _row(record: Record) -> dict[str, Any]:
    return {
        "id": str(record.id),
        "created_at": record.created_at.isoformat().replace("+00:00", "Z"),
        "category": record.category,
        "version": record.version,
        "serial": record.serial,
        "station": record.station,
        "verdict": record.verdict,
        "score": record.score,
        "threshold": record.threshold,
        "margin": margin(record.score, record.threshold),
        "p_value": record.p_value,
        "region_count": len(record.regions),
        "regions": record.regions,
        "width": record.width,
        "height": record.height,
        "request_id": record.request_id,
        "submitted_by": record.submitted_by,
    }


def _csv(records: Sequence[Record]) -> bytes:
    rows = ({**_row(record), "regions": json.dumps(record.regions)} for record in records)
    return _lines([[_safe(row[column]) for column in COLUMNS] for row in rows])


def _lines(rows: Sequence[Sequence[Any]]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)  # its dialect ends lines with CR LF and doubles quotes, as the RFC has it
    return file.getvalue().encode()


def _safe(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    defused = _FORMULA_WITHIN.sub(r"\1'", cell)
    return f"'{defused}" if cell.startswith(_FORMULA) else defused


def _ndjson(records: Sequence[Record]) -> bytes:
    return "".join(f"{json.dumps(_row(record), ensure_ascii=False)}\n" for record in records).encode()


CSV = Format("csv", "text/csv; charset=utf-8; header=present", _lines([COLUMNS]), _csv)
NDJSON = Format("ndjson", "application/x-ndjson", b"", _ndjson)
