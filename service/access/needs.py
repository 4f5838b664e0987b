"""What a route asks of whoever calls it: `dependencies=[needs("read")]` on a router or a route.

It authenticates, limits the rate, and documents itself: described.py adds its answers to whatever has it.
"""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.params import Security as SecurityParameter
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from service.access.open_mode import check_local
from service.access.principal import Principal, Scope
from service.errors import ScopeMissing
from service.state import Running, Service

_BEARER = HTTPBearer(scheme_name="bearer", description="Authorization: Bearer jsk_...", auto_error=False)
_HEADER = APIKeyHeader(name="X-API-Key", scheme_name="header", description="X-API-Key: jsk_...", auto_error=False)


def needs(*scopes: Scope) -> SecurityParameter:
    """A dependency that lets in who has one of these scopes; administrators have all.

    Answers 401, 403 or 429 otherwise.
    """
    parameter: SecurityParameter = Security(_authorise, scopes=list(scopes))
    return parameter


async def _authorise(
    request: Request,
    service: Running,
    wanted: SecurityScopes,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    header: Annotated[str | None, Depends(_HEADER)],
) -> None:
    # Authenticated once a request: a router's and a route's needs must not cost two of the key's requests.
    principal: Principal | None = getattr(request.state, "principal", None)
    if principal is None:
        principal = _authenticate(request, service, _secret(bearer, header))
        request.state.principal = principal
    if not any(principal.may(scope) for scope in wanted.scopes):  # type: ignore[arg-type]
        raise ScopeMissing(principal.name, wanted.scopes)


def _secret(bearer: HTTPAuthorizationCredentials | None, header: str | None) -> str | None:
    """The key; X-API-Key first, because a proxy may use Authorization for itself."""
    if header is not None:
        return header
    return bearer.credentials if bearer is not None and bearer.scheme.lower() == "bearer" else None


def _authenticate(request: Request, service: Service, secret: str | None) -> Principal:
    if service.guard.open:
        settings = service.settings
        client = request.client.host if request.client is not None else ""
        check_local(request.headers, client=client, hosts=settings.open_hosts, origins=settings.cors_origins)
    return service.guard.admit(secret)


async def _acting(request: Request) -> Principal:
    principal: Principal = request.state.principal  # a route that needs no scope has nobody acting, and fails here
    return principal


Acting = Annotated[Principal, Depends(_acting)]
