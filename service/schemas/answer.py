"""What all answers have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class Answer(BaseModel):
    """Immutable once made."""

    model_config = ConfigDict(frozen=True)
