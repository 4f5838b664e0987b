"""What probes are told."""

from typing import Literal

from service.schemas.answer import Answer


class Live(Answer):
    """The process answers, and need not be started anew."""

    live: Literal[True] = True


class Ready(Answer):
    """Parts can be judged."""

    ready: Literal[True] = True
