"""Sends pictures and tallies what comes back: at a rate whatever the answers (open loop), or by turns (closed loop).

Nothing is sent twice: load shows what a server does, and a client that tries again would hide it.
"""

import asyncio
import io
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp

from service.load.answers import Accepted, Refusal, no_connection, read_answer, read_failure
from service.load.tally import Tally
from service.load.target import Target

# Servers close connections that have idled (uvicorn: after 5 s); one that is closing must not be taken for a new part.
_IDLE_SECONDS = 4.0


@dataclass(frozen=True)
class Parts:
    """What is sent: the pictures in turn, each as a part of its own if `serial_prefix` is given.

    `idempotent` gives each request a key of its own, as a camera that might try again does.
    """

    pictures: Sequence[bytes]
    serial_prefix: str | None = None
    idempotent: bool = False

    def query(self, number: int) -> dict[str, str]:
        """The query of the request with this number, from 0."""
        return {} if self.serial_prefix is None else {"serial": f"{self.serial_prefix}{number:06d}"}

    def headers(self) -> dict[str, str]:
        """The headers that a request has for itself."""
        return {"Idempotency-Key": str(uuid.uuid4())} if self.idempotent else {}


@dataclass(frozen=True)
class Sender:
    """Posts parts to a target over the connections of `session`.

    `timeout` is the seconds that a part may wait for a connection, and that its answer may take from then on.
    """

    session: aiohttp.ClientSession
    target: Target
    parts: Parts
    tally: Tally
    timeout: float

    async def send(self, number: int, *, due: float) -> None:
        """Send one part, and tally it whatever happens; `due` is when it should have been sent."""
        clock = asyncio.get_running_loop().time
        self.tally.begin(due=due, now=clock())
        attempt = _Attempt(self.tally, self.timeout)
        outcome = await self._post(number, attempt)
        if attempt.sent or isinstance(outcome, Accepted):
            self.tally.end(outcome, due=due, now=clock())
        else:
            self.tally.give_up(outcome)

    async def _post(self, number: int, attempt: "_Attempt") -> Accepted | Refusal:
        picture = self.parts.pictures[number % len(self.parts.pictures)]
        try:
            async with (
                attempt.limit,
                self.session.post(
                    self.target.url.with_query(self.parts.query(number)),
                    data=io.BytesIO(picture),  # bytes would be written in one piece, however many
                    headers=self.parts.headers(),
                    allow_redirects=False,
                    trace_request_ctx=attempt,
                ) as response,
            ):
                return read_answer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and not attempt.sent:
                return no_connection(timeout=self.timeout)
            return read_failure(error, timeout=self.timeout)


class _Attempt:
    """One request on its way: `timeout` seconds to get a connection, and from then on as many again to be answered."""

    def __init__(self, tally: Tally, timeout: float) -> None:
        self.tally = tally
        self.timeout = timeout
        self.sent = False
        self.limit = asyncio.timeout(timeout)

    def send(self) -> None:
        """The connection is there, and the answer's time begins."""
        now = asyncio.get_running_loop().time()
        self.sent = True
        self.limit.reschedule(now + self.timeout)
        self.tally.send(now=now)


@asynccontextmanager
async def open_session(target: Target, *, connections: int) -> AsyncIterator[aiohttp.ClientSession]:
    """At most `connections` at once."""
    trace = aiohttp.TraceConfig()
    trace.on_connection_queued_start.append(_count_wait)
    trace.on_connection_create_end.append(_send)
    trace.on_connection_reuseconn.append(_send)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=_IDLE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None),  # it would run while a request waits for a connection: see _Attempt
        headers=target.headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace],
    ) as session:
        yield session


async def _count_wait(_session: aiohttp.ClientSession, context: SimpleNamespace, _: Any) -> None:
    if isinstance(context.trace_request_ctx, _Attempt):
        context.trace_request_ctx.tally.waited_for_connection += 1


async def _send(_session: aiohttp.ClientSession, context: SimpleNamespace, _: Any) -> None:
    if isinstance(context.trace_request_ctx, _Attempt):
        context.trace_request_ctx.send()


async def open_loop(sender: Sender, arrivals: Iterable[float]) -> None:
    """Send a part at each arrival, whether or not those before it were answered; then wait for all answers."""
    clock, start = asyncio.get_running_loop().time, sender.tally.start
    async with asyncio.TaskGroup() as group:
        for number, arrival in enumerate(arrivals):
            # Even when late: what was sent must get to run, or a sender behind its plan would never look at answers.
            await asyncio.sleep(max(0.0, start + arrival - clock()))
            group.create_task(sender.send(number, due=start + arrival))


async def closed_loop(sender: Sender, *, connections: int, seconds: float) -> None:
    """Send for `seconds` with so many parts in hand at any time: the next one when one is answered."""
    clock, start = asyncio.get_running_loop().time, sender.tally.start
    numbers = iter(range(2**62))

    async def by_turns() -> None:
        while (now := clock()) < start + seconds:
            await sender.send(next(numbers), due=now)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(by_turns())
