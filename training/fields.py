"""What the sections of a recipe are made of."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


Item = TypeVar("Item")
# A value in a recipe may be one or a list of several, to choose from.
OneOrMore = Annotated[tuple[Item, ...], BeforeValidator(_listed), Field(min_length=1, max_length=16)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, and so are infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
