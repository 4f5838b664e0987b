"""One run of load: the plan, and its way from the first question to the server to the figures."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from service.load import arrivals
from service.load.report import show_progress
from service.load.sender import Parts, Sender, closed_loop, open_loop, open_session
from service.load.summary import Summary
from service.load.tally import Tally
from service.load.target import Target, check


@dataclass(frozen=True)
class Plan:
    """How fast, how long, over how many connections at most. Without a `rate`, the next part when one is answered.

    With a `poisson_seed` the arrivals are irregular. `timeout` is the seconds that an answer may take from sending,
    and before that the wait for a connection.
    """

    rate: float | None
    seconds: float
    connections: int
    timeout: float
    poisson_seed: int | None = None

    def send(self, sender: Sender) -> Coroutine[Any, Any, None]:
        """All of it, until the last answer."""
        if self.rate is None:
            return closed_loop(sender, connections=self.connections, seconds=self.seconds)
        if self.poisson_seed is None:
            return open_loop(sender, arrivals.constant(self.rate, self.seconds))
        return open_loop(sender, arrivals.poisson(self.rate, self.seconds, seed=self.poisson_seed))


def run(plan: Plan, target: Target, parts: Parts, *, console: Console) -> Summary:
    """Send and sum up; Ctrl-C ends it early with what there is by then. Raises LoadError if it cannot begin."""
    tally = Tally()
    try:
        asyncio.run(_run(plan, target, parts, tally=tally, console=console))
    except KeyboardInterrupt:
        if tally.begun == 0:
            raise
        return Summary(tally, seconds=tally.last_begun, planned=plan.rate, interrupted=True)
    return Summary(tally, seconds=plan.seconds, planned=plan.rate)


async def _run(plan: Plan, target: Target, parts: Parts, *, tally: Tally, console: Console) -> None:
    async with open_session(target, connections=plan.connections) as session:
        await check(session, target)
        tally.start = asyncio.get_running_loop().time()
        async with _shown(tally, seconds=plan.seconds, console=console):
            await plan.send(Sender(session, target, parts, tally, plan.timeout))


@asynccontextmanager
async def _shown(tally: Tally, *, seconds: float, console: Console) -> AsyncIterator[None]:
    showing = asyncio.create_task(show_progress(tally, seconds=seconds, console=console))
    try:
        yield
    finally:
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing
