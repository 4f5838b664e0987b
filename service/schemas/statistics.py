"""Counts of inspections, and how far their scores have drifted."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from service.schemas.answer import Answer, Share


class _Counts(Answer):
    inspected: Annotated[int, Field(ge=1)]
    rejected: Annotated[int, Field(ge=0)]
    reject_rate: Share
    mean_score: float


class Bucket(_Counts):
    """What was inspected in one hour or day, as far as that lies in the window."""

    start: datetime


class Drift(Answer):
    """How far the window's p-values are from those of good parts (Kolmogorov and Smirnov's distance)."""

    distance: Share
    p_value: Annotated[Share, Field(description="about how often chance alone makes it as large")]
    inspected: int
    scores: Annotated[Literal["higher", "lower"], Field(description="than calibrated, where the distance is")]


class VersionStatistics(_Counts):
    """What one version of a category's artifact has judged in the window."""

    category: str
    version: str
    drift: Annotated[
        Drift | None, Field(description="null: what the artifact was calibrated by cannot be read, or does not fit")
    ]
    buckets: Annotated[list[Bucket], Field(description="ascending; those without an inspection are left out")]


class Statistics(Answer):
    """Counts over the window from `since` up to, but without, `until`."""

    since: datetime
    until: datetime
    bucket: Literal["hour", "day"]
    items: Annotated[list[VersionStatistics], Field(description="by category and version")]
