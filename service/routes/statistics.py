"""How the line does: counts by hour or day, and whether scores are still distributed as they were calibrated."""

import logging
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query

from service import drift
from service.access.needs import needs
from service.errors import ManifestUnreadable
from service.problems import documented
from service.query_parameters import ONLY_KNOWN, Category, Moment, check_window, refusal
from service.schemas import statistics as schemas
from service.state import Running, Service
from service.storage.queries import Filters
from service.storage.statistics import Count, Statistics, Tally, Width
from service.uploads import Label

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/statistics", tags=["statistics"], dependencies=[needs("read"), ONLY_KNOWN])

_DEFAULT = timedelta(hours=24)
# Both bound the size of an answer, which is one row a bucket and version.
_LONGEST: dict[Width, timedelta] = {"hour": timedelta(days=31), "day": timedelta(days=400)}


@router.get("", responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE))
async def show_statistics(
    service: Running,
    category: Category | None = None,
    station: Annotated[Label | None, Query(description="exactly")] = None,
    since: Annotated[Moment | None, Query(description="24 hours before `until` if left out")] = None,
    until: Annotated[Moment | None, Query(description="now if left out")] = None,
    bucket: Annotated[Width, Query(description="UTC's; by the hour up to 31 days, by the day up to 400")] = "hour",
) -> schemas.Statistics:
    """Parts inspected and rejected, mean scores, and the drift of the scores against calibration."""
    ends = until or datetime.now(UTC)
    begins = since or _before(ends)
    check_window(begins, ends)
    if ends - begins > _LONGEST[bucket]:
        remedy = "ask for less, or by the day" if bucket == "hour" else "ask for less"
        raise refusal("since", f"by the {bucket} at most {_LONGEST[bucket].days} days are counted; {remedy}")
    filters = Filters(category=category, station=station, since=begins, until=ends)
    return await to_thread.run_sync(partial(_statistics, service, filters, bucket), limiter=service.reading)


def _before(moment: datetime) -> datetime:
    earliest = datetime.min.replace(tzinfo=UTC)
    return moment - _DEFAULT if moment - earliest > _DEFAULT else earliest


def _statistics(service: Service, filters: Filters, bucket: Width) -> schemas.Statistics:
    tallies = Statistics(service.database).tallies(filters, width=bucket)
    return schemas.Statistics(
        since=filters.since, until=filters.until, bucket=bucket, items=[_of_version(service, each) for each in tallies]
    )


def _of_version(service: Service, tally: Tally) -> schemas.VersionStatistics:
    return schemas.VersionStatistics(
        category=tally.category,
        version=tally.version,
        **_counts(tally.total),
        drift=_drift(service, tally),
        buckets=[schemas.Bucket(start=start, **_counts(count)) for start, count in tally.buckets.items()],
    )


def _drift(service: Service, tally: Tally) -> schemas.Drift | None:
    """None if the artifact's calibration is not known, or if some p-value cannot have come from it."""
    try:
        manifest = service.artifacts.manifest(tally.category, tally.version)
        return schemas.Drift(**vars(drift.drift(tally.p_values, calibrated=manifest.dataset.images)))
    except (ManifestUnreadable, ValueError) as error:
        logger.warning("no drift for category %s, version %s: %s", tally.category, tally.version, error)
        return None


def _counts(count: Count) -> dict[str, float]:
    return {
        "inspected": count.inspected,
        "rejected": count.rejected,
        "reject_rate": count.reject_rate,
        "mean_score": count.mean_score,
    }
