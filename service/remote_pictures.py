"""Kept pictures in an object store, by fsspec: S3 and what speaks its language, or another that fsspec knows.

Credentials and endpoints come from where the store's own library looks for them, never from our settings. Every call
is given up after `seconds`, so that a store that hangs costs a request and not the line; libraries that are
not asynchronous (memory, SFTP) bring time limits of their own.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.asyn import sync
from fsspec.core import url_to_fs

from service.errors import StartupError, StoreUnavailable
from service.picture_place import is_digest, key

_EXTRAS = {"s3": "s3", "s3a": "s3"}  # protocol -> the extra of ours that brings its library


class RemotePictures:
    """A `PicturePlace` under `root`, e.g. "bucket/folder", of a file system."""

    def __init__(self, files: AbstractFileSystem, root: str, *, seconds: float) -> None:
        self._files = files
        self._root = root.rstrip("/")
        self._seconds = seconds

    def write(self, digest: str, data: bytes) -> None:
        """Store a picture; it is not asked first whether it is there, which would cost as much."""
        path = self._path(digest)
        with _failing("The picture could not be kept, so there is no verdict"):
            if not self._files.async_impl:  # those have real folders, which must be there
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._call("pipe_file", path, data)

    def read(self, digest: str) -> bytes | None:
        """A picture's bytes, if it is there."""
        with _failing("The picture could not be read"):
            try:
                content: bytes = self._call("cat_file", self._path(digest))
            except FileNotFoundError:
                return None
            return content

    def remove(self, digest: str) -> None:
        """Delete the object; where a bucket keeps versions, its own rules remove those."""
        with _failing("The picture could not be removed"):
            try:
                self._call("rm_file", self._path(digest))
            except FileNotFoundError:
                return

    def walk(self) -> Iterator[Mapping[str, int]]:
        """The pictures of one folder after the other."""
        for number in range(256):
            with _failing("The kept pictures could not be listed"):
                try:
                    found = self._call("find", f"{self._root}/{number:02x}", detail=True)
                except FileNotFoundError:
                    continue
            named = ((path.rpartition("/")[2], about["size"]) for path, about in found.items())
            yield {name: size for name, size in named if is_digest(name)}

    def modified(self, digest: str) -> datetime | None:
        """The object's time; now, in a store that has none."""
        with _failing("The picture could not be looked up"):
            try:
                moment: datetime = self._files.modified(self._path(digest))
            except FileNotFoundError:
                return None
            except NotImplementedError:
                return datetime.now(UTC)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

    def tidy(self) -> None:
        """Nothing: an object store shows nothing of a write before it is whole."""

    def _path(self, digest: str) -> str:
        return f"{self._root}/{key(digest)}"

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        if not self._files.async_impl:
            return getattr(self._files, name)(*arguments, **options)
        operation = getattr(self._files, f"_{name}")
        return sync(self._files.loop, operation, *arguments, timeout=self._seconds, **options)


def open_remote(url: str, *, seconds: float) -> RemotePictures:
    """The place at a URL such as s3://bucket/folder. It is not connected to before it is used.

    Raises StartupError if the URL is none that can be used here.
    """
    protocol = url.partition("://")[0]
    try:
        # Its cache of listings would hide what other processes do.
        files, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        advice = f"pip install 'jigsight[{extra}]'" if extra else str(error)
        raise StartupError(
            f"JIGSIGHT_PICTURES_URL begins with {protocol}://, and what that needs is not installed: {advice}."
        ) from error
    except (ValueError, TypeError, OSError) as error:
        raise StartupError(f"JIGSIGHT_PICTURES_URL ({protocol}://...) cannot be used: {error}.") from error
    if not root.strip("/"):
        raise StartupError(f"JIGSIGHT_PICTURES_URL names no bucket or folder, as {protocol}://bucket/folder does.")
    return RemotePictures(files, root, seconds=seconds)


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Errors of the store as StoreUnavailable; `what` begins the sentence."""
    try:
        yield
    except Exception as error:  # each store's library has errors of its own: no list of them would be complete
        slow = isinstance(error, TimeoutError)
        reason = "the picture store does not answer" if slow else "the picture store refused it"
        raise StoreUnavailable(f"{what} ({reason}). The service's log says more.") from error
