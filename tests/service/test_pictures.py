"""The folder of kept pictures: whole files or none, the same picture once."""

import hashlib
from pathlib import Path

import pytest

from service.errors import ImageGone, StoreUnavailable
from service.pictures import Pictures


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_picture_comes_back_and_is_kept_once(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path / "pictures")
    digest = pictures.keep(b"picture")
    assert digest == pictures.keep(b"picture") == hashlib.sha256(b"picture").hexdigest()
    assert pictures.fetch(digest) == b"picture"
    assert [path.name for path in files(tmp_path)] == [digest]


def test_a_picture_that_was_deleted_is_gone(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path)
    digest = pictures.keep(b"picture")
    files(tmp_path)[0].unlink()
    with pytest.raises(ImageGone, match="style=heat"):
        pictures.fetch(digest)


def test_a_disk_that_refuses_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"picture").hexdigest()
    (tmp_path / digest[:2]).write_bytes(b"a file where a folder must be")
    with pytest.raises(StoreUnavailable, match="could not be kept"):
        Pictures(tmp_path).keep(b"picture")
    assert len(files(tmp_path)) == 1
