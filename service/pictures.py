"""The kept pictures: each is named by the SHA-256 of its content, lies in one place, and has a row in the database.

A picture is kept before its inspection is committed, and the commit notes it (`storage.pictures.note_kept`). What is
read is compared with its name: bytes that changed in the meantime are not shown as the picture of a part.
"""

import hashlib
import logging
from datetime import UTC, datetime
from pathlib import Path

from service.errors import ImageDamaged, ImageGone, StartupError
from service.local_pictures import LocalPictures
from service.picture_place import PicturePlace
from service.remote_pictures import open_remote
from service.settings import Settings
from service.storage.pictures import PictureIndex

logger = logging.getLogger(__name__)

_STILL_THERE = "Its map is still there: the heatmap styles heat, mask and raw can be had (style=heat)."


class Pictures:
    """The bytes of uploads, as they came."""

    def __init__(self, place: PicturePlace, index: PictureIndex) -> None:
        self._place = place
        self._index = index

    def keep(self, data: bytes) -> str:
        """Store a picture durably; its SHA-256, to be noted with the inspection within `storage.pictures.GRACE`.

        Raises StoreUnavailable if that is not possible.
        """
        digest = digest_of(data)
        self._index.renew(digest, at=datetime.now(UTC))  # before the file is looked for: see storage.pictures
        self._place.write(digest, data)
        return digest

    def fetch(self, digest: str) -> bytes:
        """A kept picture's bytes. Raises ImageGone, ImageDamaged or StoreUnavailable."""
        data = self._place.read(digest)
        if data is None:
            raise self._gone(digest)
        if digest_of(data) != digest:
            logger.error(
                "The kept picture %s is damaged: its %d bytes are not those it is named by.", digest, len(data)
            )
            raise ImageDamaged(f"The picture of this inspection was kept, but has been damaged since. {_STILL_THERE}")
        return data

    def _gone(self, digest: str) -> ImageGone:
        if self._index.knows(digest):
            logger.error("The kept picture %s is no longer in its place, and retention has not removed it.", digest)
            return ImageGone(
                f"The picture of this inspection was kept, but its file is no longer there. {_STILL_THERE}"
            )
        return ImageGone(
            "The picture of this inspection was kept and has been removed, as old pictures are "
            f"(JIGSIGHT_KEEP_IMAGES_DAYS, JIGSIGHT_KEEP_IMAGES_BYTES). {_STILL_THERE}"
        )


def open_place(settings: Settings) -> PicturePlace:
    """Where the settings want pictures to be kept. Raises StartupError."""
    if not settings.pictures_url:
        return LocalPictures(settings.pictures)
    protocol, separator, path = settings.pictures_url.partition("://")
    if not separator or not path.strip("/"):
        raise StartupError(
            f"JIGSIGHT_PICTURES_URL={settings.pictures_url!r} is not a URL such as s3://bucket/folder. "
            "For a folder on this machine write file:///folder."
        )
    if protocol == "file":
        return LocalPictures(Path(path))  # fsspec's would neither sync nor rename
    return open_remote(settings.pictures_url, seconds=settings.pictures_seconds)


def digest_of(data: bytes) -> str:
    """The name that a picture is kept under."""
    return hashlib.sha256(data).hexdigest()
