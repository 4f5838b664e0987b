"""Which categories are served, by which artifact, and which files are not."""

from http import HTTPStatus

from fastapi import APIRouter, Request

from service.access.needs import needs
from service.problems import documented
from service.registry import Entry
from service.schemas import Categories, Category, CategoryDetail, CategoryLinks, Refused, category_fields
from service.state import Running

router = APIRouter(prefix="/v1/categories", tags=["categories"], dependencies=[needs("read")])


@router.get("")
async def list_categories(request: Request, service: Running) -> Categories:
    """Every category that is served, and every file of the artifact folder that is not."""
    return Categories(
        categories=[_category(request, entry) for entry in service.registry.entries.values()],
        refused=[Refused(file=each.file, reason=each.reason) for each in service.registry.refused],
    )


@router.get("/{category}", responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY))
async def show_category(category: str, request: Request, service: Running) -> CategoryDetail:
    """One category with the manifest of its active artifact."""
    entry = service.registry.entry(category)
    manifest = entry.active.manifest.model_dump(mode="json")
    return CategoryDetail(**_category(request, entry).model_dump(), manifest=manifest)


def _category(request: Request, entry: Entry) -> Category:
    root = request.scope.get("root_path", "")
    path = root + request.app.url_path_for("show_category", category=entry.active.manifest.category)
    return Category(
        **category_fields(entry.active),
        versions=list(entry.versions),
        links=CategoryLinks(self=path, inspections=f"{path}/inspections"),
    )
