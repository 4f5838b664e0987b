"""Which categories are served, by which artifact, and which files are not."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request

from models.calibration import attainable_alpha
from service.access.needs import needs
from service.manifest_words import sentences
from service.problems import documented
from service.query_parameters import ONLY_KNOWN
from service.registry.registry import Registry
from service.registry.view import Entry
from service.schemas.categories import (
    Categories,
    Category,
    CategoryDetail,
    CategoryLinks,
    CategoryVersion,
    Refused,
    Threshold,
)
from service.state import Running

router = APIRouter(prefix="/v1/categories", tags=["categories"], dependencies=[needs("read")])


@router.get("", dependencies=[ONLY_KNOWN], responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY))
async def list_categories(request: Request, service: Running) -> Categories:
    """Every category that is served, and every file of the artifact folder that is not."""
    registry = service.registry
    return Categories(
        categories=[shown(request, registry, entry) for entry in registry.entries.values()],
        refused=[Refused(file=each.file, reason=each.reason) for each in registry.refused],
    )


@router.get("/{category}", responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY))
async def show_category(category: str, request: Request, service: Running) -> CategoryDetail:
    """One category with the manifest of its active artifact, in words and whole."""
    entry = service.registry.entry(category)
    return CategoryDetail(
        **shown(request, service.registry, entry).model_dump(),
        summary=[] if entry.manifest is None else sentences(entry.manifest),
        manifest=None if entry.manifest is None else entry.manifest.model_dump(mode="json"),
    )


def shown(request: Request, registry: Registry, entry: Entry) -> Category:
    """A category as it is answered."""
    root = request.scope.get("root_path", "")
    path = root + request.app.url_path_for("show_category", category=entry.category)
    computing_in = registry.memory.computing_in(entry.key)  # asked once: it may be evicted meanwhile
    return Category(
        category=entry.category,
        version=entry.version,
        activated_at=entry.since,
        activated_by=entry.by,
        versions=[
            CategoryVersion(version=version, active=version == entry.version, newer=version in entry.newer)
            for version in entry.versions
        ],
        loaded=computing_in is not None,
        computing_in=computing_in,
        problem=registry.problem(entry.category),
        **_of_manifest(entry),
        links=CategoryLinks(
            self=path,
            inspections=f"{path}/inspections",
            activate=f"{path}/activate",
            rollback=f"{path}/rollback",
            threshold=f"{path}/threshold",
        ),
    )


def _of_manifest(entry: Entry) -> dict[str, Any]:
    manifest = entry.manifest
    if manifest is None:
        return dict.fromkeys(("kind", "architecture", "image_size", "good_images", "threshold"))
    return {
        "kind": manifest.kind,
        "architecture": manifest.detector.arch,
        "image_size": manifest.detector.preprocess.image_size,
        "good_images": manifest.dataset.images,
        "threshold": threshold_of(entry),
    }


def threshold_of(entry: Entry) -> Threshold:
    """The threshold in force: the manifest's own, or what it was changed to."""
    version, manifest, change = entry.version, entry.manifest, entry.threshold
    assert manifest is not None
    own, least = manifest.threshold, attainable_alpha(manifest.dataset.images)
    since, by = (None, None) if change is None else (change.set_at, change.set_by)
    if change is None or change.value is None:
        return Threshold(version=version, **own.model_dump(), attainable_false_reject_rate=least, since=since, by=by)
    rate = change.false_reject_rate
    warning = None
    if rate is not None and rate < least:
        warning = (
            f"{manifest.dataset.images} good pictures cannot vouch for a rate of {rate:g}: the highest of their scores "
            f"is the threshold, and about {least:.2g} of good parts will be rejected."
        )
    return Threshold(
        version=version,
        value=change.value,
        pixel=own.pixel,
        rule="set" if rate is None else "conformal",
        false_reject_rate=None if rate is None else max(rate, least),
        attainable_false_reject_rate=least,
        since=since,
        by=by,
        warning=warning,
    )
