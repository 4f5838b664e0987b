"""Inspections as they are answered: one, a page of them, and those of a part."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from service.schemas.answer import Answer, Share


class Region(Answer):
    """A connected part of the picture around a place whose score is above the threshold."""

    box: Annotated[tuple[int, int, int, int], Field(description="x, y, width, height")]
    area: Annotated[int, Field(description="its pixels")]
    peak: Annotated[float, Field(description="its highest score")]


class ImageSize(Answer):
    """Pixels of the uploaded picture, as it is looked at (after its EXIF orientation was applied)."""

    width: int
    height: int


class Durations(Answer):
    """Where the time went, in milliseconds."""

    decode_ms: float
    queue_ms: Annotated[float, Field(description="waiting for the detector")]
    inference_ms: Annotated[float, Field(description="of the whole micro-batch that the picture was in")]


class InspectionLinks(Answer):
    """Where to go on from an inspection."""

    self: str
    heatmap: str
    image: Annotated[str | None, Field(description="null if the picture was not kept")]
    category: str


class Inspection(Answer):
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


class ListLinks(Answer):
    """Where to go on from a page of a list."""

    self: str
    next: Annotated[str | None, Field(description="the next page; ascending: what will have been added")]
    follow: Annotated[str, Field(description="ascending, whatever comes after the newest inspection there was")]


class InspectionPage(Answer):
    """Some inspections, newest first or in the order in which they were stored."""

    items: list[Inspection]
    next: Annotated[
        str | None,
        Field(description="the cursor to go on with; descending: null at the end; ascending: always there"),
    ]
    links: ListLinks


class PartLinks(Answer):
    """Where to go on from a part."""

    self: str
    next: Annotated[str | None, Field(description="older inspections, if there are more than shown")]


class Part(Answer):
    """What is known of one part. It passes only if all of its latest inspections do."""

    serial: str
    disposition: Literal["pass", "fail"]
    latest: Annotated[list[Inspection], Field(description="the last one of each category and station")]
    inspections: Annotated[list[Inspection], Field(description="newest first")]
    links: PartLinks
