"""In whose name a request acts: its API key's, where there are keys, or anybody's."""

from typing import Annotated

from fastapi import Depends, Request

from service.access.principal import ANYBODY, Principal


async def acting(request: Request) -> Principal:
    """Who asks, as the check of the API key has left it in the request's state."""
    principal: Principal = getattr(request.state, "principal", ANYBODY)
    return principal


Acting = Annotated[Principal, Depends(acting)]
