"""What a query may say: moments with their time zone, filters, and no parameter that the route does not know.

A parameter that is misspelled, or given twice, would be lost silently: it is refused.
"""

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from models.manifest import CATEGORY_PATTERN
from service.storage.queries import Filters
from service.uploads import Label

VERSION_PATTERN = r"^[0-9a-f]{12}$"


def refusal(name: str, what: str) -> RequestValidationError:
    """The error to raise for a parameter of the query: a 422 that says so."""
    return RequestValidationError([{"loc": ("query", name), "msg": what}])


async def _only_known(request: Request) -> None:
    known = _names(request.scope["route"].dependant)
    for name, count in Counter(key for key, _ in request.query_params.multi_items()).items():
        if name not in known:
            raise refusal(name, f"there is no such parameter here; there are {', '.join(known) or 'none'}")
        if count > 1:
            raise refusal(name, f"it is given {count} times; give it once")


def _names(dependant: Dependant) -> list[str]:
    """The parameters of a route and of what it depends on."""
    own = [field.alias for field in dependant.query_params]
    return own + [name for inner in dependant.dependencies for name in _names(inner)]


ONLY_KNOWN = Depends(_only_known)


def _moment(given: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(given)
        in_utc = moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise PydanticCustomError(
            "moment",
            "{given} is no moment; write it like 2030-01-31T06:00:00Z, or with an offset as in "
            "2030-01-31T06:00:00%2B01:00 (in an address, %2B stands for +)",
            {"given": repr(given)},
        ) from None
    if moment.tzinfo is None:
        raise PydanticCustomError(
            "moment", "it has no time zone; write {moment}Z for UTC", {"moment": moment.isoformat()}
        )
    return in_utc


Moment = Annotated[
    datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"}, mode="validation")
]
Category = Annotated[str, StringConstraints(pattern=CATEGORY_PATTERN)]
Version = Annotated[str, StringConstraints(pattern=VERSION_PATTERN)]


async def _filters(
    serial: Annotated[Label | None, Query(description="of the part, exactly")] = None,
    category: Category | None = None,
    verdict: Literal["pass", "fail"] | None = None,
    station: Annotated[Label | None, Query(description="where it was seen, exactly")] = None,
    version: Annotated[Version | None, Query(description="of the artifact that judged")] = None,
    since: Annotated[Moment | None, Query(description="made then or later; ISO 8601 with a time zone")] = None,
    until: Annotated[Moment | None, Query(description="made before; ISO 8601 with a time zone")] = None,
) -> Filters:
    check_window(since, until)
    return Filters(serial, category, verdict, station, version, since, until)


Asked = Annotated[Filters, Depends(_filters)]


def check_window(since: datetime | None, until: datetime | None) -> None:
    """Refuse a window that ends before it begins."""
    if since is not None and until is not None and since > until:
        raise refusal("since", f"{since.isoformat()} is later than until, {until.isoformat()}")
