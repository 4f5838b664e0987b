"""Who asks. Made once a request, from its API key; whatever is changed is noted under its name."""

from dataclasses import dataclass
from typing import Literal

Scope = Literal["inspect", "read", "admin"]
SCOPES: tuple[Scope, ...] = ("inspect", "read", "admin")


@dataclass(frozen=True)
class Principal:
    """The holder of an API key, or whoever asks a service that has none."""

    name: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether the holder has this scope; an administrator has all of them."""
        return scope in self.scopes or "admin" in self.scopes


# A service without any key listens on localhost only: who can reach it there may do everything.
ANYBODY = Principal("", frozenset(SCOPES))
