"""What the OpenAPI document says of access: on every operation that `needs` a scope, which ones will do.

OpenAPI 3.1 lists them as roles of each way to send a key.
"""

from http import HTTPStatus
from typing import Any

from service.problems import MEDIA_TYPE
from service.response_headers import RETRY_AFTER

_FORM = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_WORD = {"type": "string"}
# Status -> what it says here, and the headers that come with it.
_REFUSALS = {
    HTTPStatus.UNAUTHORIZED: ("No API key, or none that is accepted", {"WWW-Authenticate": {"schema": _WORD}}),
    HTTPStatus.FORBIDDEN: ("The API key lacks the scope that this needs", {}),
    HTTPStatus.TOO_MANY_REQUESTS: ("The API key has asked too often", RETRY_AFTER),
}


def describe(operation: dict[str, Any]) -> None:
    """Add to an operation of an OpenAPI document which scopes will do, and the answers of who has none of them."""
    if "security" not in operation:
        return
    scopes = sorted({scope for way in operation["security"] for roles in way.values() for scope in roles})
    if "admin" in scopes:  # a router's needs and a route's
        scopes = ["admin"]
    # Each way to send a key, with each of the scopes that will do.
    operation["security"] = [{name: [scope]} for way in operation["security"] for name in way for scope in scopes]
    said = operation.get("description", "")
    operation["description"] = f"{said}\n\nNeeds the scope {' or '.join(f'`{scope}`' for scope in scopes)}.".strip()
    responses = operation["responses"]
    # The Open Inference Protocol has a form of its own for errors.
    form = next((each["content"] for status, each in responses.items() if int(status) >= 400), _FORM)
    for status, (description, headers) in _REFUSALS.items():
        responses.setdefault(str(int(status)), {"description": description, "headers": headers, "content": form})
