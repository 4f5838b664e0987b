"""Requests as bodies: where the JSON ends, whose the binary data is, and what is refused."""

import json
from typing import Any

import pytest

from service.errors import BadInference, UploadTooLarge
from service.open_inference import messages
from service.open_inference.messages import (
    BinarySize,
    InferenceOutput,
    InferenceResponse,
    read_frame,
    write_frame,
)

IMAGE = {"name": "image", "datatype": "BYTES", "shape": [1]}


def binary(size: Any, **more: Any) -> dict[str, Any]:
    return IMAGE | {"parameters": {"binary_data_size": size}} | more


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def refused(sent: bytes, header_length: str | None = None) -> str:
    with pytest.raises(BadInference) as refusal:
        read_frame(sent, header_length=header_length)
    return str(refusal.value)


def test_binary_data_is_dealt_out_in_the_order_of_the_inputs() -> None:
    head = body(binary(3), IMAGE | {"name": "serial", "data": ["x"]}, binary(2, name="station"))
    frame = read_frame(head + b"abcde", header_length=str(len(head)))
    assert [None if each is None else bytes(each) for each in frame.binaries] == [b"abc", None, b"de"]
    assert [each.name for each in frame.request.inputs] == ["image", "serial", "station"]


def test_json_alone() -> None:
    frame = read_frame(body(IMAGE | {"data": ["x"]}, id="7", parameters=None, outputs=None), header_length=None)
    assert frame.binaries == (None,)
    assert frame.request.id == "7"
    assert not frame.request.wishes.binary_data_output


@pytest.mark.parametrize("length", ["", "-1", "+5", "1.5", "0x10", " 5", "٣", "9" * 30, "1_0", "zwölf"])
def test_a_length_that_is_no_number(length: str) -> None:
    assert "no number of bytes" in refused(body(binary(0)), length)


def test_a_length_that_is_wrong() -> None:
    head = body(binary(3))
    assert "has" in refused(head, str(len(head) + 1))
    assert "not JSON" in refused(head + b"abc", str(len(head) - 1))
    assert "not JSON" in refused(head + b"abc", str(len(head) + 1))
    assert "not JSON" in refused(head + b"abc", "0")
    assert "not JSON" in refused(head + b"abc")


def test_binary_data_that_is_cut_off_or_left_over() -> None:
    head = body(binary(3))
    assert "3 bytes of binary data, but 2 are left" in refused(head + b"ab", str(len(head)))
    assert "1 bytes are left over" in refused(head + b"abcd", str(len(head)))
    assert "but 0 are left" in refused(head)


def test_data_is_given_once() -> None:
    assert "no data" in refused(body(IMAGE))
    assert "twice" in refused(body(binary(0, data=["x"])))


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b"NaN",
        b"[" * 100_000,
        b'{"inputs": [' + b"9" * 5000 + b"]}",
        body(),
        body(*[IMAGE | {"data": ["x"]}] * 17),
        body(IMAGE | {"data": "x"}),
        body(IMAGE | {"data": ["x"], "shape": [-1]}),
        body(IMAGE | {"data": ["x"], "shape": [0]}),
        body(IMAGE | {"data": ["x"], "shape": []}),
        body(IMAGE | {"data": ["x"], "shape": ["1"]}),
        body(IMAGE | {"data": ["x"], "shape": [True]}),
        body(IMAGE | {"data": ["x"], "shape": [10**30]}),
        body(IMAGE | {"data": ["x"], "name": "\ud800"}),
        body(IMAGE | {"data": ["x"], "more": 1}),
        body(IMAGE | {"parameters": {"shared_memory_region": "a"}}),
        body(IMAGE | {"data": ["x"], "parameters": {"content_type": "pd"}}),
        body(binary(-1)),
        body(binary(1.0)),
        body(binary(True)),
        body(IMAGE | {"data": ["x"]}, outputs=[{"name": "score", "parameters": {"classification": 1}}]),
        body(IMAGE | {"data": ["x"]}, parameters={"seriall": "7"}),
        body(IMAGE | {"data": ["x"]}, parameters={"serial": 7}),
        body(IMAGE | {"data": ["x"]}, parameters={"serial": ""}),
        body(IMAGE | {"data": ["x"]}, parameters={"serial": "\ud800"}),
        body(IMAGE | {"data": ["x"]}, parameters={"binary_data_output": "yes"}),
        body(IMAGE | {"data": ["x"]}, id=7),
    ],
)
def test_requests_that_are_not_understood(sent: bytes) -> None:
    assert refused(sent).startswith("The request is ")


def test_json_of_too_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    full = body(IMAGE | {"data": [1] * 80})
    monkeypatch.setattr(messages, "MOST_JSON_BYTES", len(full))
    read_frame(full, header_length=None)
    with pytest.raises(UploadTooLarge, match=f"at most {len(full)} are read"):
        read_frame(full + b" ", header_length=None)
    monkeypatch.undo()
    monkeypatch.setattr(messages, "MOST_JSON_LISTS", 10)
    assert "at most 10 are read" in refused(body(IMAGE | {"data": [[]] * 10}))


def test_a_response_with_binary_data() -> None:
    output = InferenceOutput(name="a", datatype="BYTES", shape=[1], parameters=BinarySize(binary_data_size=3))
    content, length = write_frame(InferenceResponse(model_name="m", model_version="v", outputs=[output]), [b"abc"])
    assert length == len(content) - 3
    assert json.loads(content[:length]) == {
        "model_name": "m",
        "model_version": "v",
        "outputs": [{"name": "a", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 3}}],
    }
    assert content[length:] == b"abc"
