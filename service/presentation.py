"""What is stored, as the API shows it: with its margin, and links instead of hashes."""

from urllib.parse import quote

from fastapi import Request

from models.verdict import margin
from service.schemas.inspections import Durations, ImageSize, Inspection, InspectionLinks, Region
from service.storage.inspections import Record


def path_of(request: Request, name: str, **parameters: object) -> str:
    """The path of the route of this name, as the client must ask for it."""
    root: str = request.scope.get("root_path", "")
    return root + quote(request.app.url_path_for(name, **parameters))


def present(request: Request, record: Record) -> Inspection:
    """One inspection."""
    path = path_of(request, "show_inspection", id=record.id)
    return Inspection(
        id=record.id,
        category=record.category,
        version=record.version,
        serial=record.serial,
        station=record.station,
        verdict=record.verdict,
        score=record.score,
        threshold=record.threshold,
        margin=margin(record.score, record.threshold),
        p_value=record.p_value,
        regions=[Region(**region) for region in record.regions],
        image=ImageSize(width=record.width, height=record.height),
        created_at=record.created_at,
        durations=Durations(**record.durations),
        links=InspectionLinks(
            self=path,
            heatmap=f"{path}/heatmap?style={'overlay' if record.image_kept else 'heat'}",
            image=f"{path}/image" if record.image_kept else None,
            category=path_of(request, "show_category", category=record.category),
        ),
    )
