"""Work for a client that goes away is not finished; work for one that stays is."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from service.connection import disconnection, while_connected


async def _never() -> None:
    await asyncio.Event().wait()


def test_the_result_of_work_whose_client_waits() -> None:
    async def work() -> int:
        return 7

    assert asyncio.run(while_connected(work(), _never)) == 7


def test_a_failure_is_raised_as_it_is() -> None:
    async def work() -> int:
        raise ValueError("of the work's own")

    with pytest.raises(ValueError, match="of the work's own"):
        asyncio.run(while_connected(work(), _never))


def test_work_is_cancelled_when_the_client_goes() -> None:
    ended = []

    async def work() -> None:
        try:
            await _never()
        finally:
            ended.append("cancelled")

    async def gone() -> None:
        return

    with pytest.raises(ClientDisconnect):
        asyncio.run(while_connected(work(), gone))
    assert ended == ["cancelled"]


def test_who_is_cancelled_cancels_the_work() -> None:
    ended = []

    async def work() -> None:
        try:
            await _never()
        finally:
            ended.append("cancelled")

    async def use() -> None:
        task = asyncio.create_task(while_connected(work(), _never))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(use())
    assert ended == ["cancelled"]


def test_a_client_has_gone_when_the_server_says_so() -> None:
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}])

    async def receive() -> dict[str, object]:
        return next(messages)

    request = Request({"type": "http", "headers": []}, receive)  # type: ignore[arg-type]
    asyncio.run(disconnection(request)())
    assert next(messages, None) is None
