"""Cameras that send parts to a server process all the time, and what they were answered."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

POST = "/v1/categories/plate/inspections"


@dataclass(frozen=True)
class Part:
    """A part, by the name that its camera gives the request, and its picture."""

    key: str
    picture: bytes
    defective: bool

    def send(self, client: httpx2.Client) -> httpx2.Response:
        """Have it inspected; sent again, it is the same request."""
        return client.post(
            POST, content=self.picture, params={"serial": self.key}, headers={"Idempotency-Key": self.key}
        )


@dataclass
class Cameras:
    """Sends parts from several threads, until told to stop or until the server is gone; every fourth is defective."""

    pictures: Sequence[tuple[bytes, bool]]
    name: str = "camera"
    count: int = 4
    sent: list[Part] = field(default_factory=list)
    answered: dict[str, dict[str, Any]] = field(default_factory=dict)  # key -> inspection
    refused: list[httpx2.Response] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of every answer, whatever it was
    first: threading.Event = field(default_factory=threading.Event)  # set when something was answered

    @property
    def wrongly_passed(self) -> list[str]:
        """Keys of defective parts that were answered with a pass. There must never be one."""
        defective = {part.key for part in self.sent if part.defective}
        return [key for key, found in self.answered.items() if key in defective and found["verdict"] != "fail"]

    @contextmanager
    def sending(self, address: str) -> Iterator[None]:
        """Send for as long as the block lasts; all have ended after it."""
        stop = threading.Event()
        with ThreadPoolExecutor(self.count) as threads:
            running = [threads.submit(self._send, address, f"{self.name}-{n}", stop) for n in range(self.count)]
            try:
                yield
            finally:
                stop.set()
        for each in running:
            each.result()

    def _send(self, address: str, name: str, stop: threading.Event) -> None:
        with httpx2.Client(base_url=address, timeout=60) as client:
            number = 0
            while not stop.is_set():
                picture, defective = self.pictures[number % len(self.pictures)]
                part = Part(f"{name}-{number}", picture, defective)
                self.sent.append(part)
                number += 1
                begun = time.perf_counter()
                try:
                    answer = part.send(client)
                except httpx2.TransportError:
                    return
                self.seconds.append(time.perf_counter() - begun)
                if answer.status_code == 201:
                    self.answered[part.key] = answer.json()
                    self.first.set()
                else:
                    self.refused.append(answer)


@pytest.fixture(scope="session")
def pictures(good: Callable[[int], bytes], bad: Callable[[int], bytes]) -> list[tuple[bytes, bool]]:
    """Pictures of parts, and whether they show a defective one."""
    return [(bad(seed), True) if seed % 4 == 3 else (good(seed), False) for seed in range(12)]


@pytest.fixture
def cameras(pictures: list[tuple[bytes, bool]]) -> Callable[..., Cameras]:
    """`cameras(name=..., count=...)`."""
    return lambda **changes: Cameras(pictures, **changes)


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """`until(condition, seconds=...)`: wait for something to become true, or fail."""

    def wait(condition: Callable[[], bool], *, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not so within {seconds} seconds"
            time.sleep(0.05)

    return wait
