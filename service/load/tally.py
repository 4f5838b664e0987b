"""What has been counted so far in a run of load. Times are seconds, on the event loop's clock.

Latency begins when a request was *due*, not when it was sent: a request that had to wait, because the server kept
the connections busy or the sender was late, has waited, and leaving that out would flatter a server that stalls.
"""

from array import array
from collections import Counter
from dataclasses import dataclass, field

from service.load.answers import Accepted, Refusal


@dataclass
class Refused:
    """Refusals of one status and kind."""

    first: Refusal
    count: int = 0
    without_retry_after: int = 0


@dataclass
class Tally:
    """Every request of a run: none is dropped, whatever came of it.

    `begun` are those whose time has come; `sent`, those of them that got a connection; `unsent`, those that never did.
    """

    start: float = 0.0
    begun: int = 0
    sent: int = 0
    unsent: int = 0
    waited_for_connection: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    accepted: "array[float]" = field(default_factory=lambda: array("d"))  # latencies
    refused: "array[float]" = field(default_factory=lambda: array("d"))  # latencies, of what was sent
    lateness: "array[float]" = field(default_factory=lambda: array("d"))  # of the sender, behind its plan
    refusals: dict[tuple[int | None, str], Refused] = field(default_factory=dict)
    last_begun: float = 0.0  # since start
    last_sent: float = 0.0  # since start
    last_accepted: float = 0.0  # since start

    @property
    def in_flight(self) -> int:
        """Requests that were sent and that nothing has come of yet."""
        return self.sent - len(self.accepted) - len(self.refused)

    @property
    def waiting(self) -> int:
        """Requests that still wait for a connection."""
        return self.begun - self.sent - self.unsent

    def begin(self, *, due: float, now: float) -> None:
        """A request that was due at `due` asks for a connection at `now`."""
        self.begun += 1
        self.last_begun = now - self.start
        self.lateness.append(max(0.0, now - due))

    def send(self, *, now: float) -> None:
        """A request has got its connection."""
        self.sent += 1
        self.last_sent = now - self.start

    def give_up(self, outcome: Refusal) -> None:
        """A request never got a connection: the server has not seen it."""
        self.unsent += 1
        self._refuse(outcome)

    def end(self, outcome: Accepted | Refusal, *, due: float, now: float) -> None:
        """What came of a request that was sent, at `now`."""
        if isinstance(outcome, Accepted):
            self.verdicts[outcome.verdict] += 1
            self.accepted.append(now - due)
            self.last_accepted = now - self.start
            return
        self.refused.append(now - due)
        self._refuse(outcome)

    def _refuse(self, outcome: Refusal) -> None:
        group = self.refusals.setdefault((outcome.status, outcome.kind), Refused(outcome))
        group.count += 1
        group.without_retry_after += outcome.retry_after is None
