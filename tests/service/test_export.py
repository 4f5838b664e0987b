"""Files of inspections: what a reader of CSV or JSON gets back."""

import csv
import io
import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.export import COLUMNS, CSV, NDJSON
from service.storage.inspections import Record

REGION = {"box": [1, 2, 3, 4], "area": 12, "peak": 1.5}


def parsed(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "＝"])
@pytest.mark.parametrize("between", ["", " ", '"', '" "'])
@pytest.mark.parametrize("separator", [";", "\t", "|", "\n"])
def test_nor_does_any_piece_of_one(
    make_record: Callable[..., Record], separator: str, between: str, begin: str
) -> None:
    """As a program sees it that splits at semicolons, and knows nothing of the quotes around the whole cell."""
    record = make_record(serial=f"A-17{separator}{between}{begin}HYPERLINK(1)", station="-1;+1;ok;a-b")
    data = CSV.encode([record])
    pieces = [piece.strip(' "') for piece in data.decode().removesuffix("\r\n").split(separator)]
    assert len(pieces) >= 2
    assert not [piece for piece in pieces if piece.startswith(begin)]
    (row,) = parsed(CSV.head + data)
    assert row["serial"] == f"A-17{separator}{between}'{begin}HYPERLINK(1)"
    assert row["station"] == "'-1;'+1;ok;a-b"


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(serial=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_texts_come_back(make_record: Callable[..., Record], serial: str) -> None:
    record = make_record(serial=serial, regions=[REGION])
    (row,) = parsed(CSV.head + CSV.encode([record]))
    assert row["serial"].replace("'", "") == serial.replace("'", "")
    assert json.loads(NDJSON.encode([record]))["serial"] == serial


def test_every_column_is_as_it_was(make_record: Callable[..., Record]) -> None:
    record = make_record(
        verdict="fail", score=1.25, serial='5" pipe, left', regions=[REGION], request_id="-1", submitted_by="cam"
    )
    data = CSV.head + CSV.encode([record, make_record()])
    assert data.count(b"\r\n") == data.count(b"\n") == 3
    assert data.splitlines()[0].decode() == ",".join(COLUMNS)
    row, plain = parsed(data)
    assert tuple(row) == COLUMNS
    assert (row["serial"], row["margin"], row["region_count"]) == ('5" pipe, left', "-0.25", "1")
    assert (row["request_id"], row["created_at"]) == ("'-1", "2030-01-02T12:00:00Z")
    assert json.loads(row["regions"]) == [REGION]
    assert float(row["p_value"]) == record.p_value
    assert (plain["serial"], plain["station"], plain["regions"]) == ("", "", "[]")
    first, second = (json.loads(line) for line in NDJSON.encode([record, make_record()]).splitlines())
    assert tuple(first) == COLUMNS
    assert (first["regions"], first["request_id"], first["margin"]) == ([REGION], "-1", -0.25)
    assert second["serial"] is None


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
@pytest.mark.parametrize("column", ["serial", "station", "submitted_by", "request_id"])
def test_no_text_begins_like_a_formula(make_record: Callable[..., Record], column: str, begin: str) -> None:
    record = make_record(**{column: f"{begin}HYPERLINK(1)"})
    (row,) = parsed(CSV.head + CSV.encode([record]))
    assert row[column] == f"'{begin}HYPERLINK(1)"
