"""Kept pictures in a folder. A picture is written beside its place, synced and renamed: a whole one or none."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from models.durable import sync
from service.errors import StoreUnavailable
from service.picture_place import is_digest, key

_INCOMING = ".incoming-"
_LEFT_BEHIND = 3600  # seconds; no write takes that long


class LocalPictures:
    """A `PicturePlace` on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._durable: set[str] = set()  # the subfolders that would outlast a power cut

    def write(self, digest: str, data: bytes) -> None:
        """Store a picture. The same one again is not written twice; a damaged one is replaced."""
        path = self._path(digest)
        with _failing("The picture could not be kept, so there is no verdict"):
            self._make(path.parent)
            if _content(path) == data:
                os.utime(path)
            else:
                _replace(path, data)
            sync(path.parent)  # also where the file was there: whoever wrote it may not have come this far

    def read(self, digest: str) -> bytes | None:
        """A picture's bytes, if it is there."""
        with _failing("The picture could not be read"):
            return _content(self._path(digest))

    def remove(self, digest: str) -> None:
        """Unlink a picture. Not synced: one that a power cut brings back is found by its walk and removed again."""
        with _failing("The picture could not be removed"):
            self._path(digest).unlink(missing_ok=True)

    def walk(self) -> Iterator[Mapping[str, int]]:
        """The pictures of one subfolder after the other."""
        for folder in self._subfolders():
            with _failing("The kept pictures could not be listed"):
                yield {path.name: size for path in folder.iterdir() if (size := _size(path)) is not None}

    def modified(self, digest: str) -> datetime | None:
        """The file's time."""
        with _failing("The picture could not be looked up"):
            try:
                return datetime.fromtimestamp(self._path(digest).stat().st_mtime, UTC)
            except FileNotFoundError:
                return None

    def tidy(self) -> None:
        """Remove the unfinished files of writes that ended with their process."""
        for folder in self._subfolders():
            with _failing("The folder of pictures could not be tidied up"):
                for path in folder.glob(f"{_INCOMING}*"):
                    if time.time() - path.stat().st_mtime > _LEFT_BEHIND:
                        path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self.folder / key(digest)

    def _subfolders(self) -> list[Path]:
        with _failing("The kept pictures could not be listed"):
            return sorted(self.folder.glob("[0-9a-f][0-9a-f]"))

    def _make(self, subfolder: Path) -> None:
        if subfolder.name in self._durable and subfolder.exists():
            return
        subfolder.mkdir(parents=True, exist_ok=True)
        sync(self.folder)
        sync(self.folder.parent)
        self._durable.add(subfolder.name)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _size(path: Path) -> int | None:
    """Bytes of a picture; None if it is none, or is just being removed."""
    try:
        return path.stat().st_size if is_digest(path.name) else None
    except FileNotFoundError:
        return None


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_INCOMING)
    incoming = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        incoming.replace(path)
    finally:
        incoming.unlink(missing_ok=True)


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Errors of the disk as StoreUnavailable; `what` begins the sentence."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"{what} ({error.strerror}). Look at the service's disk.") from error
