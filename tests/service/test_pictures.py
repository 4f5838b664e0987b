"""Kept pictures: they come back as they came, or it is said why not."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.errors import ImageDamaged, ImageGone, StartupError
from service.local_pictures import LocalPictures
from service.pictures import Pictures, open_place
from service.remote_pictures import RemotePictures
from service.settings import Settings
from service.storage.database import Database
from service.storage.pictures import PictureIndex, note_kept

NAME = hashlib.sha256(b"picture").hexdigest()
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> LocalPictures:
    return LocalPictures(tmp_path / "pictures")


@pytest.fixture
def pictures(place: LocalPictures, database: Database) -> Pictures:
    return Pictures(place, PictureIndex(database))


def commit(database: Database, at: datetime) -> None:
    with database.adding() as connection:
        note_kept(connection, [(NAME, 7, at)])


def test_a_picture_comes_back(pictures: Pictures) -> None:
    assert pictures.keep(b"picture") == pictures.keep(b"picture") == NAME
    assert pictures.fetch(NAME) == b"picture"


def test_a_picture_that_is_uploaded_again_is_safe_before_it_is_committed(
    pictures: Pictures, database: Database
) -> None:
    pictures.keep(b"picture")
    commit(database, LONG_AGO)
    now = datetime.now(UTC)
    assert len(PictureIndex(database).oldest(10, now=now)) == 1
    pictures.keep(b"picture")
    assert PictureIndex(database).oldest(10, now=now) == []
    assert PictureIndex(database).oldest(10, now=now + timedelta(minutes=20)) != []


def test_a_file_that_is_lost_is_told_from_one_that_was_removed(
    pictures: Pictures, place: LocalPictures, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    pictures.keep(b"picture")
    place.remove(NAME)
    with pytest.raises(ImageGone, match=r"has been removed, as old pictures are.*style=heat"):
        pictures.fetch(NAME)
    assert caplog.text == ""
    commit(database, LONG_AGO)
    with pytest.raises(ImageGone, match=r"file is no longer there.*style=heat"):
        pictures.fetch(NAME)
    assert NAME in caplog.text


def test_a_damaged_picture_is_not_shown(
    pictures: Pictures, place: LocalPictures, caplog: pytest.LogCaptureFixture
) -> None:
    pictures.keep(b"picture")
    (place.folder / NAME[:2] / NAME).write_bytes(b"pictura")
    with pytest.raises(ImageDamaged, match="damaged"):
        pictures.fetch(NAME)
    assert NAME in caplog.text
    pictures.keep(b"picture")
    assert pictures.fetch(NAME) == b"picture"


def test_the_place_is_the_settings(tmp_path: Path) -> None:
    def opened(url: str | None) -> object:
        return open_place(Settings(data=tmp_path, pictures_url=url))

    for url, folder in ((None, tmp_path / "pictures"), ("", tmp_path / "pictures"), ("file:///srv/x", Path("/srv/x"))):
        place = opened(url)
        assert isinstance(place, LocalPictures)
        assert place.folder == folder
    assert isinstance(opened("memory://pictures"), RemotePictures)
    for url in ("pictures", "s3://", "/srv/pictures"):
        with pytest.raises(StartupError, match="not a URL such as s3://bucket/folder"):
            opened(url)
