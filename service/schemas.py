"""What the service answers, as pydantic models: the OpenAPI document is made from them."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.manifest import Kind, ThresholdRule

Share = Annotated[float, Field(ge=0, le=1)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Region(_Answer):
    """A connected part of the picture around a place whose score is above the threshold."""

    box: Annotated[tuple[int, int, int, int], Field(description="x, y, width, height")]
    area: Annotated[int, Field(description="its pixels")]
    peak: Annotated[float, Field(description="its highest score")]


class ImageSize(_Answer):
    """Pixels of the uploaded picture, as it is looked at (after its EXIF orientation was applied)."""

    width: int
    height: int


class Durations(_Answer):
    """Where the time went, in milliseconds."""

    decode_ms: float
    queue_ms: Annotated[float, Field(description="waiting for the detector")]
    inference_ms: Annotated[float, Field(description="of the whole micro-batch that the picture was in")]


class InspectionLinks(_Answer):
    """Where to go on from an inspection."""

    self: str
    heatmap: str
    image: Annotated[str | None, Field(description="null if the picture was not kept")]
    category: str


class Inspection(_Answer):
    """A verdict on one picture of one part. Boxes and areas are in the uploaded picture's own pixels."""

    id: UUID
    category: str
    version: Annotated[str, Field(description="of the artifact that judged")]
    serial: str | None
    station: str | None
    verdict: Literal["pass", "fail"]
    score: Annotated[float, Field(description="how unlike good parts its worst place is")]
    threshold: float
    margin: Annotated[
        float,
        Field(description="share of the threshold that is left (positive: passes) or exceeded (negative: fails)"),
    ]
    p_value: Annotated[Share, Field(description="how often a good part scores at least as high")]
    regions: Annotated[list[Region], Field(description="highest peak first; none if the part passes")]
    image: ImageSize
    created_at: datetime
    durations: Durations
    links: InspectionLinks


class ListLinks(_Answer):
    """Where to go on from a page of a list."""

    self: str
    next: Annotated[str | None, Field(description="the next page; ascending: what will have been added")]
    follow: Annotated[str, Field(description="ascending, whatever comes after the newest inspection there was")]


class InspectionPage(_Answer):
    """Some inspections, newest first or in the order in which they were stored."""

    items: list[Inspection]
    next: Annotated[
        str | None,
        Field(description="the cursor to go on with; descending: null at the end; ascending: always there"),
    ]
    links: ListLinks


class PartLinks(_Answer):
    """Where to go on from a part."""

    self: str
    next: Annotated[str | None, Field(description="older inspections, if there are more than shown")]


class Part(_Answer):
    """What is known of one part. It passes only if all of its latest inspections do."""

    serial: str
    disposition: Literal["pass", "fail"]
    latest: Annotated[list[Inspection], Field(description="the last one of each category and station")]
    inspections: Annotated[list[Inspection], Field(description="newest first")]
    links: PartLinks


class _Counts(_Answer):
    inspected: Annotated[int, Field(ge=1)]
    rejected: Annotated[int, Field(ge=0)]
    reject_rate: Share
    mean_score: float


class Bucket(_Counts):
    """What was inspected in one hour or day, as far as that lies in the window."""

    start: datetime


class Drift(_Answer):
    """How far the window's p-values are from those of good parts (Kolmogorov and Smirnov's distance)."""

    distance: Share
    p_value: Annotated[Share, Field(description="about how often chance alone makes it as large")]
    inspected: int
    scores: Annotated[Literal["higher", "lower"], Field(description="than calibrated, where the distance is")]


class VersionStatistics(_Counts):
    """What one version of a category's artifact has judged in the window."""

    category: str
    version: str
    drift: Drift
    buckets: Annotated[list[Bucket], Field(description="ascending; those without an inspection are left out")]


class Statistics(_Answer):
    """Counts over the window from `since` up to, but without, `until`."""

    since: datetime
    until: datetime
    bucket: Literal["hour", "day"]
    items: Annotated[list[VersionStatistics], Field(description="by category and version")]


class Threshold(_Answer):
    """A score above `value` fails; how, when and by whom it was set."""

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
    warning: Annotated[str | None, Field(description="why it is not quite what was asked for")] = None


class WishedThreshold(BaseModel):
    """A rate of false rejects, or a value; without either, the artifact's own threshold again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    false_reject_rate: Annotated[
        float | None, Field(ge=0.0001, le=0.5, description="share of good parts that may be rejected")
    ] = None
    value: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="a score above it fails")] = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "WishedThreshold":
        if self.false_reject_rate is not None and self.value is not None:
            raise ValueError("give false_reject_rate or value, not both")
        return self


class WishedVersion(BaseModel):
    """The version that is to judge."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Annotated[str, Field(min_length=1, max_length=64, examples=["661dc7ef268b"])]


class CategoryVersion(_Answer):
    """A usable file in the artifact folder."""

    version: str
    active: Annotated[bool, Field(description="whether it judges")]
    newer: Annotated[bool, Field(description="whether it has come after the active one, and waits to be activated")]


class CategoryLinks(_Answer):
    """Where to go on from a category."""

    self: str
    inspections: Annotated[str, Field(description="POST pictures here")]
    activate: Annotated[str, Field(description="POST a version here")]
    rollback: Annotated[str, Field(description="POST here to go back to the version before")]
    threshold: Annotated[str, Field(description="PUT a threshold here")]


class Category(_Answer):
    """A kind of part that is served, and what judges it."""

    category: str
    version: Annotated[str, Field(description="the active one, which judges")]
    activated_at: datetime
    activated_by: Annotated[
        str, Field(description="`jigsight`: its first; else the API key's name, empty without keys")
    ]
    versions: Annotated[list[CategoryVersion], Field(description="usable files in the artifact folder, oldest first")]
    loaded: Annotated[bool, Field(description="in memory; if not, the next picture loads it")]
    problem: Annotated[
        str | None,
        Field(description="why the active version cannot be loaded; while it is `loaded` it goes on judging"),
    ]
    kind: Kind
    architecture: str
    image_size: Annotated[int, Field(description="edge of the square that the network sees, in pixels")]
    good_images: Annotated[int, Field(description="how many good parts it was trained on")]
    threshold: Threshold
    links: CategoryLinks


class CategoryDetail(Category):
    """A category with its active artifact's manifest, in words and whole."""

    summary: Annotated[list[str], Field(description="the manifest in sentences")]
    manifest: dict[str, Any]


class Refused(_Answer):
    """A file in the artifact folder that is not served."""

    file: str
    reason: str


class Categories(_Answer):
    """What is served, and what is not."""

    categories: list[Category]
    refused: list[Refused]


class NotedChange(_Answer):
    """Something that an administrator changed."""

    id: int
    at: datetime
    actor: Annotated[str, Field(description="name of an API key, `command line, <user>`, or empty without keys")]
    action: Annotated[str, Field(examples=["activate"])]
    subject: Annotated[str, Field(examples=["category bracket"])]
    detail: dict[str, Any]
    request_id: Annotated[str, Field(description="of the request that changed it; empty from the command line")]


class Changes(_Answer):
    """A page of the audit trail."""

    changes: list[NotedChange]
    next: Annotated[int | None, Field(description="`cursor` of the next page; null if this is the last one")]


class Live(_Answer):
    """The process answers, and need not be started anew."""

    live: Literal[True] = True


class Ready(_Answer):
    """Parts can be judged."""

    ready: Literal[True] = True
