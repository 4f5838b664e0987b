"""Which categories are served, by which artifact, and which files are not."""

from http import HTTPStatus

from fastapi import APIRouter, Request

from models.manifest import Manifest
from service.access.needs import needs
from service.manifest_words import sentences
from service.problems import documented
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
from service.storage.artifacts import ThresholdChange

router = APIRouter(prefix="/v1/categories", tags=["categories"], dependencies=[needs("read")])


@router.get("", responses=documented())
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
        summary=sentences(entry.manifest),
        manifest=entry.manifest.model_dump(mode="json"),
    )


def shown(request: Request, registry: Registry, entry: Entry) -> Category:
    """A category as it is answered."""
    root = request.scope.get("root_path", "")
    path = root + request.app.url_path_for("show_category", category=entry.category)
    manifest = entry.manifest
    return Category(
        category=entry.category,
        version=entry.version,
        activated_at=entry.since,
        activated_by=entry.by,
        versions=[
            CategoryVersion(version=version, active=version == entry.version, newer=version in entry.newer)
            for version in entry.versions
        ],
        loaded=entry.key in registry.memory.sizes,
        problem=registry.problem(entry.category),
        kind=manifest.kind,
        architecture=manifest.detector.arch,
        image_size=manifest.detector.preprocess.image_size,
        good_images=manifest.dataset.images,
        threshold=threshold(manifest, entry.threshold),
        links=CategoryLinks(
            self=path,
            inspections=f"{path}/inspections",
            activate=f"{path}/activate",
            rollback=f"{path}/rollback",
            threshold=f"{path}/threshold",
        ),
    )


def threshold(manifest: Manifest, change: ThresholdChange | None) -> Threshold:
    """The threshold in force: the manifest's own, or what it was changed to."""
    own, least = manifest.threshold, 1 / (manifest.dataset.images + 1)  # Calibration.attainable_alpha
    since, by = (None, None) if change is None else (change.set_at, change.set_by)
    if change is None or change.value is None:
        return Threshold(**own.model_dump(), attainable_false_reject_rate=least, since=since, by=by)
    rate = change.false_reject_rate
    warning = None
    if rate is not None and rate < least:
        warning = (
            f"{manifest.dataset.images} good pictures cannot vouch for a rate of {rate:g}: the highest of their scores "
            f"is the threshold, and about {least:.2g} of good parts will be rejected."
        )
    return Threshold(
        value=change.value,
        pixel=own.pixel,
        rule="set" if rate is None else "conformal",
        false_reject_rate=None if rate is None else max(rate, least),
        attainable_false_reject_rate=least,
        since=since,
        by=by,
        warning=warning,
    )
