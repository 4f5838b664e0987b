"""What administrators changed."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from service.schemas.answer import Answer


class NotedChange(Answer):
    """Something that an administrator changed."""

    id: int
    at: datetime
    actor: Annotated[str, Field(description="name of an API key, `command line, <user>`, or empty without keys")]
    action: Annotated[str, Field(examples=["activate"])]
    subject: Annotated[str, Field(examples=["category bracket"])]
    detail: dict[str, Any]
    request_id: Annotated[str, Field(description="of the request that changed it; empty from the command line")]


class Changes(Answer):
    """A page of the audit trail."""

    changes: list[NotedChange]
    next: Annotated[int | None, Field(description="`cursor` of the next page; null if this is the last one")]
