"""Work that is only worth doing while its client waits for it.

A camera that gave up has no use for the verdict; until a batch has begun its part need not be judged.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

Result = TypeVar("Result")
Gone = Callable[[], Awaitable[None]]


def disconnection(request: Request) -> Gone:
    """What returns when the client of a request, whose body has been read, has gone."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return gone


async def while_connected(work: Coroutine[Any, Any, Result], gone: Gone) -> Result:
    """The result of `work`, which is cancelled if the client goes first: ClientDisconnect is raised then."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        watching.result()  # raises what kept it from watching
        raise ClientDisconnect
    finally:
        tasks = {working, watching}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
