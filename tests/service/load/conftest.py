"""A server of the tests' own, which answers as a test says: slowly, with problems, or not at all."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager

import pytest
from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def refuse_empty(_: web.Request) -> web.StreamResponse:
    """As JigSight does it for a category that it serves."""
    return web.json_response({"detail": "The body is empty."}, status=400)


@contextmanager
def answer_with(answer: Answer, *, without_picture: Answer = refuse_empty) -> Iterator[str]:
    """The address of a server for category `plate`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await (answer if await request.read() else without_picture)(request)

    loop: Future[asyncio.AbstractEventLoop] = Future()
    port: Future[int] = Future()
    ended = asyncio.Event()

    async def serve() -> None:
        application = web.Application(client_max_size=2**24)
        application.router.add_post("/v1/categories/plate/inspections", handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        loop.set_result(asyncio.get_running_loop())
        port.set_result(runner.addresses[0][1])
        await ended.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield f"http://127.0.0.1:{port.result()}"
    finally:
        loop.result().call_soon_threadsafe(ended.set)
        thread.join()


@pytest.fixture
def answering() -> Callable[..., AbstractContextManager[str]]:
    """`answer_with`."""
    return answer_with
