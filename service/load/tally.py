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
    """Every request of a run: none is dropped, whatever came of it."""

    start: float = 0.0
    sent: int = 0
    waited_for_connection: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    accepted: "array[float]" = field(default_factory=lambda: array("d"))  # latencies
    refused: "array[float]" = field(default_factory=lambda: array("d"))  # latencies
    lateness: "array[float]" = field(default_factory=lambda: array("d"))  # of the sender, behind its plan
    refusals: dict[tuple[int | None, str], Refused] = field(default_factory=dict)
    last_begun: float = 0.0  # since start
    last_accepted: float = 0.0  # since start

    @property
    def in_flight(self) -> int:
        """Requests that nothing has come of yet."""
        return self.sent - len(self.accepted) - len(self.refused)

    def begin(self, *, due: float, now: float) -> None:
        """A request that was due at `due` is sent at `now`."""
        self.sent += 1
        self.last_begun = now - self.start
        self.lateness.append(max(0.0, now - due))

    def end(self, outcome: Accepted | Refusal, *, due: float, now: float) -> None:
        """What came of it, at `now`."""
        if isinstance(outcome, Accepted):
            self.verdicts[outcome.verdict] += 1
            self.accepted.append(now - due)
            self.last_accepted = now - self.start
            return
        self.refused.append(now - due)
        group = self.refusals.setdefault((outcome.status, outcome.kind), Refused(outcome))
        group.count += 1
        group.without_retry_after += outcome.retry_after is None
