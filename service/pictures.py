"""The kept pictures: a folder in which each file is named by the SHA-256 of its content.

A picture is written beside its place, synced and renamed, so that there is a whole one or none. The same
picture sent twice is one file.
"""

import hashlib
import os
import tempfile
from pathlib import Path

from models.durable import sync
from service.errors import ImageGone, StoreUnavailable


class Pictures:
    """The bytes of uploads, as they came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, data: bytes) -> str:
        """Store a picture durably; its SHA-256. Raises StoreUnavailable if that is not possible."""
        digest = digest_of(data)
        path = self._path(digest)
        try:
            if not path.exists():
                self._write(path, data)
        except OSError as error:
            raise StoreUnavailable(
                f"The picture could not be kept ({error.strerror}), so there is no verdict. Look at the "
                "service's disk, or set JIGSIGHT_KEEP_IMAGES=none."
            ) from error
        return digest

    def fetch(self, digest: str) -> bytes:
        """A kept picture's bytes. Raises ImageGone."""
        try:
            return self._path(digest).read_bytes()
        except FileNotFoundError:
            raise ImageGone(
                "The picture of this inspection was kept, but its file is no longer there. Its map is: the "
                "heatmap styles heat, mask and raw can still be had (style=heat)."
            ) from None

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest

    def _write(self, path: Path, data: bytes) -> None:
        fresh = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".incoming-")
        incoming = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            incoming.replace(path)
        finally:
            incoming.unlink(missing_ok=True)
        sync(path.parent)
        if fresh:
            sync(self.folder)


def digest_of(data: bytes) -> str:
    """The name that a picture is kept under."""
    return hashlib.sha256(data).hexdigest()
