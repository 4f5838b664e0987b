"""When requests are due, in seconds since the start: a plan made without looking at any answer."""

import random
from collections.abc import Iterator


def constant(rate: float, seconds: float) -> Iterator[float]:
    """`rate` a second, evenly, for `seconds`; at least one."""
    return (number / rate for number in range(max(1, round(rate * seconds))))


def poisson(rate: float, seconds: float, *, seed: int) -> Iterator[float]:
    """`rate` a second on average, independent of one another as parts from many machines are; at least one.

    The gaps are exponential. The same seed gives the same plan.
    """
    draw = random.Random(seed)
    due = 0.0
    while True:
        yield due
        due += draw.expovariate(rate)
        if due >= seconds:
            return
