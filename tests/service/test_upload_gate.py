"""Uploads that are slow, or many: memory is bounded before a body is read, and places come back."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from service.app import create_app
from service.errors import TooManyUploads, UploadTooSlow
from service.settings import Settings
from service.upload_gate import UploadGate

POST = "/v1/categories/plate/inspections"
Picture = Callable[[int], bytes]


def test_places_are_limited_and_given_back() -> None:
    async def use() -> None:
        gate = UploadGate(limit=2, seconds=60)
        inside, leave = asyncio.Semaphore(0), asyncio.Event()

        async def hold() -> None:
            async with gate.enter():
                inside.release()
                await leave.wait()

        for _ in range(2):
            tasks = [asyncio.create_task(hold()) for _ in range(2)]
            for _ in tasks:
                await inside.acquire()
            with pytest.raises(TooManyUploads, match="2 uploads"):
                await hold()
            leave.set()
            await asyncio.gather(*tasks)
            leave.clear()

    asyncio.run(use())


def test_time_is_limited_and_the_place_comes_back() -> None:
    async def use() -> None:
        gate = UploadGate(limit=1, seconds=0.01)
        for _ in range(2):
            with pytest.raises(UploadTooSlow, match=r"after 0\.01 seconds"):
                async with gate.enter():
                    await asyncio.Event().wait()
        with pytest.raises(ZeroDivisionError):
            async with gate.enter():
                _ = 1 / 0
        async with gate.enter():
            pass

    asyncio.run(use())


class Stuck:
    """A client that has sent half a picture and then no more, until it goes away."""

    def __init__(self, client: TestClient, path: str = POST) -> None:
        self.sent: list[Message] = []
        self.waiting = threading.Event()
        self._leave = anyio.Event()
        self._halves = iter([{"type": "http.request", "body": b"half", "more_body": True}])
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 50_000),
            "state": dict(client.app_state),
        }
        assert client.portal is not None
        self._portal = client.portal
        self.done: Future[None] = self._portal.start_task_soon(self._ask, client.app)

    async def _ask(self, app: Any) -> None:
        await app(self._scope, self._receive, self._send)

    async def _receive(self) -> Message:
        for half in self._halves:
            return half
        self.waiting.set()
        await self._leave.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def leave(self) -> None:
        self._portal.call(self._leave.set)
        self.done.result(timeout=60)


@contextmanager
def running(settings: Settings, **changes: object) -> Iterator[TestClient]:
    with TestClient(create_app(settings.model_copy(update=changes))) as client:
        yield client


@pytest.mark.parametrize(
    ("limit", "kind"), [({"queue_limit": 2}, "queue-full"), ({"upload_limit": 2}, "too-many-uploads")]
)
def test_bodies_on_their_way_take_places(settings: Settings, good: Picture, limit: dict[str, int], kind: str) -> None:
    with running(settings, **limit) as client:
        stuck = [Stuck(client) for _ in range(2)]
        assert all(each.waiting.wait(timeout=60) for each in stuck)
        answer = client.post(POST, content=good(1))
        assert (answer.status_code, answer.json()["type"]) == (503, f"urn:jigsight:problem:{kind}")
        assert int(answer.headers["retry-after"]) >= 1
        for each in stuck:
            each.leave()
        assert [each.sent for each in stuck] == [[], []]
        assert client.post(POST, content=good(1)).status_code == 201


def test_an_upload_that_stalls_is_answered_and_gives_its_places_back(settings: Settings) -> None:
    with running(settings, upload_limit=1, queue_limit=1, upload_seconds=0.5) as client:
        stuck = Stuck(client)
        stuck.done.result(timeout=60)
        start, body = stuck.sent[0], stuck.sent[1]["body"]
        assert start["status"] == 408
        headers = dict(start["headers"])
        assert headers[b"content-type"] == b"application/problem+json"
        assert headers[b"connection"] == b"close"
        assert b"urn:jigsight:problem:upload-too-slow" in body
        assert b"JIGSIGHT_UPLOAD_SECONDS" in body
        assert client.post(POST, content=b"x").status_code == 415


def test_a_part_that_is_being_judged_is_through_the_gate(settings: Settings, good: Picture) -> None:
    with running(settings, upload_limit=1) as client:
        service = client.app_state["service"]
        entered, leave = threading.Event(), threading.Event()

        def hold(*_: object) -> None:
            entered.set()
            assert leave.wait(timeout=60)

        service.registry.artifact("plate").detector.register_forward_pre_hook(hold)
        answers: list[int] = []
        first = threading.Thread(target=lambda: answers.append(client.post(POST, content=good(1)).status_code))
        first.start()
        assert entered.wait(timeout=60)
        assert client.post(POST, content=b"not a picture").status_code == 415
        leave.set()
        first.join()
        assert answers == [201]
