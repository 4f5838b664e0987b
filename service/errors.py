"""Requests that could not be judged, each with its HTTP status. No other package knows status codes.

ServiceError
├── Unauthenticated     401  no key, or none that is accepted
│   └── KeyExpired           told to who has the key
├── ScopeMissing        403  a key for something else
├── ForeignRequest      403  without keys: another site's page, or a name that is not this machine's
├── RateLimited         429  with Retry-After
├── UnknownCategory     404
├── UnknownVersion      404
├── UnknownInspection   404
├── VersionNotActive    404  only the active version of a category judges
├── UnknownPart         404
├── BadCursor           422
├── ImageNotKept        404  by the policy that was in force
├── VersionRefused      409  its file cannot be used, so it cannot be activated
├── NothingToRollBack   409
├── OtherVersionActive  409  what was wished for a version, which does not judge
├── ImageGone           410  it was kept, and has been removed since
├── ImageDamaged        410  it was kept, but is not what it was
├── ManifestUnreadable  410  of an artifact that another JigSight has served
├── NoImage             400  an empty body or a form without a picture
├── BadForm             400  a multipart body that cannot be read
├── BadInference        400  a request of the Open Inference Protocol that cannot be read, or asks for what is not there
├── EncodedBody         415  a compressed body
├── UploadTooLarge      413
├── UploadTooSlow       408
├── QueueFull           503  with Retry-After
├── TooManyUploads      503  with Retry-After
├── NotReady            503
├── ArtifactUnavailable 503  the category's active artifact cannot be loaded; no other one takes its place
├── EngineStopped       503
├── DeadlinePassed      503  with Retry-After
├── RequestInFlight     409  with Retry-After: the same Idempotency-Key
├── KeyReused           422  the same Idempotency-Key for something else
├── StoreUnavailable    503  the database or the place of the pictures does not answer: nothing was judged
├── JudgingFailed       500
├── KeyRefused               what `jigsight keys` cannot do
└── StartupError             settings, folder or database that the service cannot start with

The errors of `models` get their statuses in `STATUSES`.
"""

from collections.abc import Iterable
from datetime import datetime
from http import HTTPStatus
from typing import ClassVar

from models.errors import (
    CorruptImage,
    ImageError,
    ImageTooLarge,
    ImageTooSmall,
    JigSightError,
    ScoreError,
    UnsupportedImage,
)


class ServiceError(JigSightError):
    """A request that could not be judged."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    retry_after: int | None = None  # seconds


class Unauthenticated(ServiceError):
    """No API key, or one that is unknown, revoked or mistyped: which of these is nobody's business."""

    status = HTTPStatus.UNAUTHORIZED


class KeyExpired(Unauthenticated):
    """The key was right, but its time is over."""

    def __init__(self, name: str, expired_at: datetime) -> None:
        super().__init__(
            f"The API key {name} expired at {expired_at:%Y-%m-%d %H:%M} UTC. Ask an administrator of this service for "
            "a new one."
        )


class ScopeMissing(ServiceError):
    """The key is not for this."""

    status = HTTPStatus.FORBIDDEN

    def __init__(self, name: str, scopes: Iterable[str]) -> None:
        needed = " or ".join(f"`{scope}`" for scope in scopes)
        super().__init__(f"The API key {name} lacks the scope {needed} that this needs. Use a key that has it.")


class ForeignRequest(ServiceError):
    """A service without keys was asked by another name than this machine's, or by another site's page."""

    status = HTTPStatus.FORBIDDEN


class RateLimited(ServiceError):
    """The key has asked more often than it may."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, name: str, rate: float, *, retry_after: int) -> None:
        super().__init__(f"The API key {name} may ask {rate:g} times a second. Ask again in {retry_after} s.")
        self.retry_after = retry_after


class UnknownCategory(ServiceError):
    """No artifact of this category is served."""

    status = HTTPStatus.NOT_FOUND

    def __init__(self, category: str, *, known: list[str]) -> None:
        served = f"Served are: {', '.join(known)}." if known else "None is: train one with `jigsight train`."
        super().__init__(f"There is no category {category[:64]!r}. {served}")


class UnknownVersion(ServiceError):
    """The category has no file of this version."""

    status = HTTPStatus.NOT_FOUND


class VersionRefused(ServiceError):
    """The version's file cannot be used; what was active still is."""

    status = HTTPStatus.CONFLICT


class NothingToRollBack(ServiceError):
    """The category's active version is its first."""

    status = HTTPStatus.CONFLICT


class OtherVersionActive(ServiceError):
    """A wish for a version of a category that does not judge at present; nothing has changed."""

    status = HTTPStatus.CONFLICT

    def __init__(self, category: str, version: str, *, active: str) -> None:
        super().__init__(
            f"Version {version!r} of category {category!r} is not the active one: that is {active}. Nothing has "
            "changed; look at the category, and ask again for the version that you mean."
        )


class UnknownInspection(ServiceError):
    """No inspection has this id."""

    status = HTTPStatus.NOT_FOUND


class VersionNotActive(ServiceError):
    """A version of a category that does not judge at present."""

    status = HTTPStatus.NOT_FOUND

    def __init__(self, category: str, version: str, *, active: str) -> None:
        super().__init__(
            f"Version {version!r} of category {category!r} is not the active one, which alone judges: that is {active}."
        )


class UnknownPart(ServiceError):
    """No part with this serial was ever inspected: of that nothing can be said."""

    status = HTTPStatus.NOT_FOUND


class BadCursor(ServiceError):
    """No cursor, or one of another list."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class ImageNotKept(ServiceError):
    """The picture was not kept, by the policy in force when it was inspected."""

    status = HTTPStatus.NOT_FOUND


class ImageGone(ServiceError):
    """The picture was kept, and is no longer there: retention has removed it, or somebody."""

    status = HTTPStatus.GONE


class ImageDamaged(ServiceError):
    """The picture was kept, but its bytes are not those that were uploaded."""

    status = HTTPStatus.GONE


class ManifestUnreadable(ServiceError):
    """The database holds an artifact's manifest in a form that this JigSight does not read."""

    status = HTTPStatus.GONE

    def __init__(self, category: str, version: str, *, reason: str) -> None:
        super().__init__(
            f"The manifest of version {version} of category {category!r} is of a form that this JigSight does not read "
            f"({reason}). What needs it cannot be had; the JigSight that has served it reads it."
        )


class NoImage(ServiceError):
    """A request to inspect without a picture."""

    status = HTTPStatus.BAD_REQUEST


class BadForm(ServiceError):
    """A multipart body that cannot be read or that contradicts its own query."""

    status = HTTPStatus.BAD_REQUEST


class BadInference(ServiceError):
    """A request of the Open Inference Protocol that cannot be read, or that asks for what there is not."""

    status = HTTPStatus.BAD_REQUEST


class EncodedBody(ServiceError):
    """A body with a content encoding."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class UploadTooLarge(ServiceError):
    """A body of more bytes than allowed; found before all of it has arrived."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UploadTooSlow(ServiceError):
    """A body that took longer to arrive than allowed."""

    status = HTTPStatus.REQUEST_TIMEOUT


class QueueFull(ServiceError):
    """As many parts of the category are in hand as the service takes on."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 1


class TooManyUploads(ServiceError):
    """As many uploads are being read as the service reads at once."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 1


class NotReady(ServiceError):
    """The service cannot judge at present."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 5


class ArtifactUnavailable(ServiceError):
    """The category's active artifact cannot be loaded at present. It is tried again by itself."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 5


class EngineStopped(ServiceError):
    """The engine does not take parts any more: the service is stopping, or its thread has died."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 5


class DeadlinePassed(ServiceError):
    """A part that waited for longer than it may; it was not judged."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 1


class RequestInFlight(ServiceError):
    """A request whose Idempotency-Key is that of one being worked on."""

    status = HTTPStatus.CONFLICT
    retry_after = 1


class KeyReused(ServiceError):
    """A request whose Idempotency-Key was answered, for another part."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class StoreUnavailable(ServiceError):
    """The database or the place of the pictures does not answer, so no verdict can be given."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 5


class JudgingFailed(ServiceError):
    """The detector failed on this picture; there is no verdict."""


class KeyRefused(ServiceError):
    """What `jigsight keys` was asked for and cannot do."""


class StartupError(ServiceError):
    """Settings, a folder or a database that the service cannot start with."""


STATUSES: dict[type[JigSightError], HTTPStatus] = {
    UnsupportedImage: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    ImageTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ImageTooSmall: HTTPStatus.UNPROCESSABLE_ENTITY,
    CorruptImage: HTTPStatus.UNPROCESSABLE_ENTITY,
    ImageError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ScoreError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
