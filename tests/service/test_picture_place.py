"""The places of kept pictures do the same: a folder, a file system in memory by fsspec, and S3 (moto's server)."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.local_pictures import LocalPictures
from service.picture_place import PicturePlace
from service.remote_pictures import open_remote

DATA = [f"picture {number}".encode() * 100 for number in range(5)]
NAMES = [hashlib.sha256(data).hexdigest() for data in DATA]


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> PicturePlace:
    """An empty place of each kind in turn."""
    if request.param == "folder":
        return LocalPictures(tmp_path / "data" / "pictures")
    if request.param == "memory":
        return open_remote(f"memory://{tmp_path.name}/pictures", seconds=5)
    bucket: Callable[[], str] = request.getfixturevalue("bucket")
    return open_remote(f"s3://{bucket()}/line 3/pictures/", seconds=20)


def everything(place: PicturePlace) -> dict[str, int]:
    return {digest: size for part in place.walk() for digest, size in part.items()}


def test_what_was_written_is_read(place: PicturePlace) -> None:
    for name, data in zip(NAMES, DATA, strict=True):
        place.write(name, data)
    assert [place.read(name) for name in NAMES] == DATA
    assert everything(place) == {name: len(data) for name, data in zip(NAMES, DATA, strict=True)}


def test_an_empty_place_is_no_error(place: PicturePlace) -> None:
    assert everything(place) == {}
    assert place.read(NAMES[0]) is None
    assert place.modified(NAMES[0]) is None
    place.remove(NAMES[0])
    place.tidy()


def test_what_was_removed_is_gone_and_nothing_else(place: PicturePlace) -> None:
    for name, data in zip(NAMES, DATA, strict=True):
        place.write(name, data)
    place.remove(NAMES[0])
    place.remove(NAMES[0])
    assert place.read(NAMES[0]) is None
    assert set(everything(place)) == set(NAMES[1:])


def test_a_damaged_picture_is_replaced_by_its_next_upload(place: PicturePlace) -> None:
    place.write(NAMES[0], DATA[0][:-1] + b"?")
    place.write(NAMES[0], DATA[0])
    assert place.read(NAMES[0]) == DATA[0]


def test_a_picture_has_the_time_of_its_last_upload(place: PicturePlace) -> None:
    for _ in range(2):
        before = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
        place.write(NAMES[0], DATA[0])
        modified = place.modified(NAMES[0])
        assert modified is not None
        assert before <= modified <= datetime.now(UTC) + timedelta(seconds=1)
