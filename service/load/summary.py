"""A run of load in figures: rates in parts a second, times in milliseconds."""

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.load.tally import Tally

PERCENTILES = (50, 90, 95, 99)
_LATE_MS = 10.0


@dataclass(frozen=True)
class Summary:
    """What a tally comes to, after `seconds` of sending. `planned` is the rate asked for; None if sent by turns."""

    tally: Tally
    seconds: float
    planned: float | None
    interrupted: bool = False

    @property
    def all_accepted(self) -> bool:
        """Whether every part was judged."""
        return self.tally.begun > 0 and len(self.tally.accepted) == self.tally.begun

    @property
    def sending(self) -> float:
        """Seconds until the last part was sent; longer than `seconds` where parts waited for a connection."""
        return max(self.seconds, self.tally.last_sent)

    @property
    def offered(self) -> float:
        """Parts a second that were sent over a connection: the load that the server saw, not what was planned."""
        return self.tally.sent / self.sending if self.sending else 0.0

    @property
    def achieved(self) -> float:
        """Parts judged a second, until the last one was."""
        seconds = max(self.tally.last_accepted, self.seconds)
        return len(self.tally.accepted) / seconds if seconds else 0.0

    @property
    def warnings(self) -> list[str]:
        """What makes the figures say something of the sender too."""
        found = []
        late = _milliseconds(self.tally.lateness).get("p99", 0.0)
        if late > _LATE_MS:
            found.append(
                f"The sender was behind its own plan (p99 {late:.0f} ms, which the latencies contain): its machine is "
                "too busy for this rate. Send from another one."
            )
        if self.planned is not None and self.tally.waited_for_connection:
            found.append(
                f"{self.tally.waited_for_connection} requests waited for a connection, which the latencies contain. "
                "Raise --connections unless that is how many there are."
            )
        if self.tally.unsent:
            found.append(
                f"{self.tally.unsent} of {self.tally.begun} requests were never sent, for they got no connection, and "
                f"are in no latency: the server was offered {self.offered:.1f}/s"
                + (f", not {self.planned:g}/s." if self.planned is not None else ".")
            )
        return found

    def document(self) -> dict[str, Any]:
        """All of it, for machines. Times are in milliseconds, from when a request was due."""
        tally = self.tally
        return {
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "planned_per_second": self.planned,
            "sent": tally.sent,
            "unsent": tally.unsent + tally.waiting,
            "unanswered": tally.in_flight,
            "offered_per_second": self.offered,
            "achieved_per_second": self.achieved,
            "accepted": len(tally.accepted),
            "verdicts": dict(tally.verdicts),
            "accepted_ms": _milliseconds(tally.accepted),
            "refused_ms": _milliseconds(tally.refused),
            "sender_late_ms": _milliseconds(tally.lateness),
            "waited_for_connection": tally.waited_for_connection,
            "refusals": [
                {
                    "status": status,
                    "kind": kind,
                    "count": group.count,
                    "without_retry_after": group.without_retry_after,
                    "retry_after": group.first.retry_after,
                    "detail": group.first.detail,
                }
                for (status, kind), group in sorted(tally.refusals.items(), key=lambda item: -item[1].count)
            ],
            "warnings": self.warnings,
        }


def _milliseconds(seconds: "array[float]") -> dict[str, float]:
    """Percentiles that were measured, none in between; empty without any times."""
    if not seconds:
        return {}
    times = np.frombuffer(seconds) * 1000
    levels = np.percentile(times, PERCENTILES, method="inverted_cdf")
    named = {f"p{level}": float(time) for level, time in zip(PERCENTILES, levels, strict=True)}
    return named | {"max": float(times.max())}
