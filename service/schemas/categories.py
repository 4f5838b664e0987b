"""Categories, what judges them, and what an administrator may wish of them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.manifest import Kind, ThresholdRule
from models.precision import Computed
from service.schemas.answer import Answer, Share


class Threshold(Answer):
    """A score above `value` fails; how, when and by whom it was set."""

    version: Annotated[str, Field(description="whose it is: the active one")]
    value: float
    pixel: Annotated[float | None, Field(description="defect regions reach down to this; null: to `value`")]
    rule: Annotated[
        ThresholdRule | Literal["set"],
        Field(description="conformal: by a rate of false rejects; train_max: the highest; set: as it is, by hand"),
    ]
    false_reject_rate: Annotated[float | None, Field(description="share of good parts rejected, about")]
    attainable_false_reject_rate: Annotated[
        Share, Field(description="the smallest that so few good pictures can vouch for: a lower wish comes out as this")
    ]
    since: Annotated[datetime | None, Field(description="null: the artifact's own since it was made")]
    by: Annotated[str | None, Field(description="the API key's name, empty without keys; null: the artifact's own")]
    warning: Annotated[
        str | None, Field(description="why it is not what was asked for; to PUT also: why it is hardly what was meant")
    ] = None


class WishedThreshold(BaseModel):
    """A rate of false rejects, or a value. For the artifact's own threshold, DELETE what was set."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    false_reject_rate: Annotated[
        float | None, Field(ge=0.0001, le=0.5, description="share of good parts that may be rejected")
    ] = None
    value: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="a score above it fails")] = None
    version: Annotated[
        str | None,
        Field(min_length=1, max_length=64, description="409 if not the active one; null: whichever is"),
    ] = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "WishedThreshold":
        if (self.false_reject_rate is None) == (self.value is None):
            raise ValueError("give false_reject_rate or value, one of them; DELETE goes back to the artifact's own")
        return self


class WishedVersion(BaseModel):
    """The version that is to judge."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Annotated[str, Field(min_length=1, max_length=64, examples=["661dc7ef268b"])]


class CategoryVersion(Answer):
    """A usable file in the artifact folder."""

    version: str
    active: Annotated[bool, Field(description="whether it judges")]
    newer: Annotated[bool, Field(description="whether it has come after the active one, and waits to be activated")]


class CategoryLinks(Answer):
    """Where to go on from a category."""

    self: str
    inspections: Annotated[str, Field(description="POST pictures here")]
    activate: Annotated[str, Field(description="POST a version here")]
    rollback: Annotated[str, Field(description="POST here to go back to the version before")]
    threshold: Annotated[str, Field(description="PUT a threshold here")]


class Category(Answer):
    """A kind of part that is served, and what judges it."""

    category: str
    version: Annotated[str, Field(description="the active one, which judges")]
    activated_at: datetime
    activated_by: Annotated[
        str, Field(description="`jigsight`: its first; else the API key's name, empty without keys")
    ]
    versions: Annotated[list[CategoryVersion], Field(description="usable files in the artifact folder, oldest first")]
    loaded: Annotated[bool, Field(description="in memory; if not, the next picture loads it")]
    computing_in: Annotated[
        Computed | None,
        Field(
            description="what its network computes in on this machine (`JIGSIGHT_PRECISION`); `precision` in the "
            "manifest is what it was trained in. null: not `loaded`"
        ),
    ]
    problem: Annotated[
        str | None,
        Field(description="why the active version cannot be loaded; while it is `loaded` it goes on judging"),
    ]
    kind: Annotated[Kind | None, Field(description="null, as the four after it: see `problem`")]
    architecture: str | None
    image_size: Annotated[int | None, Field(description="edge of the square that the network sees, in pixels")]
    good_images: Annotated[int | None, Field(description="how many good parts it was trained on")]
    threshold: Threshold | None
    links: CategoryLinks


class CategoryDetail(Category):
    """A category with its active artifact's manifest, in words and whole."""

    summary: Annotated[list[str], Field(description="the manifest in sentences")]
    manifest: Annotated[dict[str, Any] | None, Field(description="null: see `problem`")]


class Refused(Answer):
    """A file in the artifact folder that is not served."""

    file: str
    reason: str


class Categories(Answer):
    """What is served, and what is not."""

    categories: list[Category]
    refused: list[Refused]
