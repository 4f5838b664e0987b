"""The folder of kept pictures: whole files or none, whatever the disk does."""

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import StoreUnavailable
from service.local_pictures import LocalPictures

DATA = b"picture" * 1000
NAME = hashlib.sha256(DATA).hexdigest()

WRITES_UNDER_A_LIMIT = """
import resource, signal, sys
from pathlib import Path
from service.errors import StoreUnavailable
from service.local_pictures import LocalPictures
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing beyond the limit is an error and not the end
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
place = LocalPictures(Path(sys.argv[1]))
try:
    place.write(sys.argv[2], b"picture" * 1000)
except StoreUnavailable as error:
    print(error)
place.write("00" * 32, b"small")
"""


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_picture_lies_under_its_digest(tmp_path: Path) -> None:
    LocalPictures(tmp_path / "pictures").write(NAME, DATA)
    assert files(tmp_path) == [tmp_path / "pictures" / NAME[:2] / NAME]


def test_the_same_picture_again_is_not_written_again_but_younger(tmp_path: Path) -> None:
    place = LocalPictures(tmp_path)
    place.write(NAME, DATA)
    path = files(tmp_path)[0]
    inode = path.stat().st_ino
    os.utime(path, (1, 1))
    place.write(NAME, DATA)
    assert path.stat().st_ino == inode
    assert time.time() - path.stat().st_mtime < 60


def test_a_picture_too_large_for_what_is_left_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITES_UNDER_A_LIMIT, str(tmp_path), NAME]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert "could not be kept, so there is no verdict (File too large)" in done.stdout
    assert [path.name for path in files(tmp_path)] == ["00" * 32]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_and_recovers(tiny_disk: Path) -> None:
    place = LocalPictures(tiny_disk / "pictures")
    large = b"x" * 100_000
    with pytest.raises(StoreUnavailable, match=os.strerror(errno.ENOSPC)):
        place.write(hashlib.sha256(large).hexdigest(), large)
    assert files(tiny_disk) == []
    place.write(NAME, DATA)
    assert place.read(NAME) == DATA


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    (tmp_path / NAME[:2]).write_bytes(b"a file where a folder must be")
    place = LocalPictures(tmp_path)
    for fails in (lambda: place.write(NAME, DATA), lambda: place.read(NAME), lambda: place.remove(NAME)):
        with pytest.raises(StoreUnavailable, match="service's disk"):
            fails()
    assert len(files(tmp_path)) == 1


def test_unfinished_files_of_a_process_that_died_are_removed(tmp_path: Path) -> None:
    place = LocalPictures(tmp_path)
    place.write(NAME, DATA)
    old, new = (tmp_path / NAME[:2] / f".incoming-{name}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half a pic")
    os.utime(old, (time.time() - 4000,) * 2)
    place.tidy()
    assert sorted(path.name for path in files(tmp_path)) == [".incoming-new", NAME]
    assert list(place.walk()) == [{NAME: len(DATA)}]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    place = LocalPictures(tmp_path)
    place.write(NAME, DATA)
    (tmp_path / "README").write_text("not ours")
    (tmp_path / NAME[:2] / "thumbs.db").write_text("not ours")
    assert list(place.walk()) == [{NAME: len(DATA)}]
