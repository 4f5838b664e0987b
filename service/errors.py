"""Requests that could not be judged, each with its HTTP status. No other package knows status codes.

ServiceError
├── UnknownCategory     404
├── UnknownInspection   404
├── ImageNotKept        404  by the policy that was in force
├── ImageGone           410  it was kept, and has been removed since
├── ImageDamaged        410  it was kept, but is not what it was
├── NoImage             400  an empty body or a form without a picture
├── BadForm             400  a multipart body that cannot be read
├── UploadTooLarge      413
├── UploadTooSlow       408
├── QueueFull           503  with Retry-After
├── TooManyUploads      503  with Retry-After
├── NotReady            503
├── EngineStopped       503
├── StoreUnavailable    503  the database or the place of the pictures does not answer: nothing was judged
├── JudgingFailed       500
└── StartupError             settings, folder or database that the service cannot start with

The errors of `models` get their statuses in `STATUSES`.
"""

from http import HTTPStatus
from typing import ClassVar

from models.errors import CorruptImage, ImageError, ImageTooLarge, JigSightError, ScoreError, UnsupportedImage


class ServiceError(JigSightError):
    """A request that could not be judged."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    retry_after: ClassVar[int | None] = None  # seconds


class UnknownCategory(ServiceError):
    """No artifact of this category is served."""

    status = HTTPStatus.NOT_FOUND

    def __init__(self, category: str, *, known: list[str]) -> None:
        served = f"Served are: {', '.join(known)}." if known else "None is: train one with `jigsight train`."
        super().__init__(f"There is no category {category!r}. {served}")


class UnknownInspection(ServiceError):
    """No inspection has this id."""

    status = HTTPStatus.NOT_FOUND


class ImageNotKept(ServiceError):
    """The picture was not kept, by the policy in force when it was inspected."""

    status = HTTPStatus.NOT_FOUND


class ImageGone(ServiceError):
    """The picture was kept, and is no longer there: retention has removed it, or somebody."""

    status = HTTPStatus.GONE


class ImageDamaged(ServiceError):
    """The picture was kept, but its bytes are not those that were uploaded."""

    status = HTTPStatus.GONE


class NoImage(ServiceError):
    """A request to inspect without a picture."""

    status = HTTPStatus.BAD_REQUEST


class BadForm(ServiceError):
    """A multipart body that cannot be read or that contradicts its own query."""

    status = HTTPStatus.BAD_REQUEST


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


class EngineStopped(ServiceError):
    """The engine does not take parts any more: the service is stopping, or its thread has died."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 5


class StoreUnavailable(ServiceError):
    """The database or the place of the pictures does not answer, so no verdict can be given."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 5


class JudgingFailed(ServiceError):
    """The detector failed on this picture; there is no verdict."""


class StartupError(ServiceError):
    """Settings, a folder or a database that the service cannot start with."""


STATUSES: dict[type[JigSightError], HTTPStatus] = {
    UnsupportedImage: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    ImageTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    CorruptImage: HTTPStatus.UNPROCESSABLE_ENTITY,
    ImageError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ScoreError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
