"""Small bodies of JSON: they come in through the gate, and no more of them is read than may be."""

from collections.abc import Iterable

import anyio
import pytest
from anyio.abc import TaskStatus
from fastapi import Request
from starlette.types import Message

from service.errors import TooManyUploads, UploadTooLarge
from service.json_body import MOST_BYTES, read_json, read_json_if_any
from service.schemas.categories import WishedVersion
from service.upload_gate import UploadGate

SENT = b'{"version": "661dc7ef268b"}'


def request(pieces: Iterable[bytes]) -> Request:
    """A request whose body arrives in these pieces, and then no more."""
    left = list(pieces)

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


async def upload(gate: UploadGate, *, task_status: TaskStatus[None]) -> None:
    """Somebody's upload that does not end."""
    async with gate.enter():
        task_status.started()
        await anyio.sleep_forever()


def test_it_comes_in_pieces_and_through_the_gate() -> None:
    async def ask() -> None:
        gate = UploadGate(limit=1, seconds=30)
        assert (await read_json(request([SENT[:5], SENT[5:]]), WishedVersion, gate=gate)).version == "661dc7ef268b"
        async with anyio.create_task_group() as others:
            await others.start(upload, gate)
            with pytest.raises(TooManyUploads):
                await read_json(request([SENT]), WishedVersion, gate=gate)
            others.cancel_scope.cancel()

    anyio.run(ask)


def test_what_follows_the_byte_that_is_too_many_is_not_waited_for() -> None:
    async def ask() -> None:
        endless = request([b" " * MOST_BYTES, b" ", b"never asked for"])
        with pytest.raises(UploadTooLarge, match="4,096 bytes"):
            await read_json(endless, WishedVersion, gate=UploadGate(limit=1, seconds=30))
        assert (await endless.receive())["body"] == b"never asked for"

    anyio.run(ask)


@pytest.mark.parametrize("sent", [b"", b" \n", b"null"])
def test_there_may_be_none(sent: bytes) -> None:
    async def ask() -> None:
        gate = UploadGate(limit=1, seconds=30)
        assert await read_json_if_any(request([sent]), WishedVersion, gate=gate) is None
        found = await read_json_if_any(request([SENT]), WishedVersion, gate=gate)
        assert found == WishedVersion(version="661dc7ef268b")

    anyio.run(ask)
