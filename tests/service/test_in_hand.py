"""Requests while the detector is busy with another: who is late, gone or sent twice; and threads that die."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from service.app import create_app
from service.inspector import _together
from service.settings import Settings
from service.state import Service
from service.storage.inspections import Addition

POST = "/v1/categories/plate/inspections"
Picture = Callable[[int], bytes]


class Busy:
    """A real service whose detector waits at the door of its forward pass."""

    def __init__(self, client: TestClient, pool: ThreadPoolExecutor) -> None:
        self.client, self._pool = client, pool
        self.service: Service = client.app_state["service"]
        self.batches: list[int] = []
        self.entered, self.open = threading.Event(), threading.Event()
        self.service.registry.artifact("plate").detector.register_forward_pre_hook(self._pass)

    def _pass(self, _module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.batches.append(len(inputs[0]))
        self.entered.set()
        assert self.open.wait(60)

    def post(self, picture: bytes, **options: Any) -> "Any":
        """A POST in a thread of its own; its future."""
        return self._pool.submit(self.client.post, POST, content=picture, **options)

    def stored(self) -> int:
        return len(self.client.get("/v1/inspections").json()["items"])


@pytest.fixture
def busy(settings: Settings) -> Iterator[Busy]:
    with (
        TestClient(create_app(settings.model_copy(update={"deadline_seconds": 30.0}))) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        made = Busy(client, pool)
        yield made
        made.open.set()


@pytest.mark.parametrize("whose", ["the sender's", "the service's"])
def test_a_part_that_is_late_is_not_judged(settings: Settings, good: Picture, whose: str) -> None:
    seconds = 30.0 if whose == "the sender's" else 0.05
    changed = settings.model_copy(update={"deadline_seconds": seconds})
    with TestClient(create_app(changed)) as client, ThreadPoolExecutor(1) as pool:
        made = Busy(client, pool)
        first = made.post(good(1))
        assert made.entered.wait(60)
        late = client.post(POST, content=good(2), params={"timeout_ms": 50} if whose == "the sender's" else {})
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        assert late.json()["type"] == "urn:jigsight:problem:deadline-passed"
        made.open.set()
        assert first.result(60).status_code == 201
        assert (made.batches, made.stored()) == ([1], 1)


def test_a_retry_that_comes_too_early_is_told_so(busy: Busy, good: Picture) -> None:
    key = {"Idempotency-Key": "once"}
    first = busy.post(good(1), headers=key)
    assert busy.entered.wait(60)
    early = busy.client.post(POST, content=good(1), headers=key)
    assert (early.status_code, early.headers["retry-after"]) == (409, "1")
    busy.open.set()
    found = first.result(60).json()["id"]
    assert busy.client.post(POST, content=good(1), headers=key).json()["id"] == found


def test_a_part_whose_client_has_gone_is_not_judged(busy: Busy, good: Picture) -> None:
    first = busy.post(good(1))
    assert busy.entered.wait(60)
    sent: list[Any] = []
    messages = iter([{"type": "http.request", "body": good(2), "more_body": False}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": POST,
        "raw_path": POST.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "state": busy.client.app_state,
    }
    asyncio.run(busy.client.app(scope, receive, send))
    assert sent == [], "nobody is there to be answered"
    assert busy.service.engine.in_hand()["plate"] == 1
    busy.open.set()
    assert first.result(60).status_code == 201
    assert busy.client.post(POST, content=good(3)).status_code == 201
    assert (busy.batches, busy.stored()) == ([1, 1], 2)


def test_when_the_writer_dies_the_process_is_of_no_use(
    client: TestClient, good: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    service: Service = client.app_state["service"]

    def die(_: Sequence[Addition]) -> None:
        raise SystemExit("as if the interpreter were going down")

    assert client.get("/v2/health/live").status_code == 200
    monkeypatch.setattr(service.inspections, "add", die)
    assert client.post(POST, content=good(1)).status_code == 503
    service.writer.stop()  # waits for its end
    assert client.get("/v2/health/live").status_code == 503
    ready = client.get("/v2/health/ready")
    assert ready.status_code == 503
    assert "the writer takes no parts" in ready.json()["detail"]


def test_what_is_done_together_has_ended_together() -> None:
    ended = []

    async def fine() -> None:
        await asyncio.sleep(0.01)
        ended.append("fine")

    async def bad() -> None:
        raise ValueError("at once")

    with pytest.raises(ValueError, match="at once"):
        asyncio.run(_together([bad(), fine()]))
    assert ended == ["fine"]
