"""Files and folders -> what is sent."""

from pathlib import Path

import pytest

from service.load.errors import LoadError
from service.load.picture_files import read_pictures


def test_folders_give_their_pictures_and_files_are_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "below/c.webp", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    assert read_pictures([tmp_path, tmp_path / "notes.txt"]) == [b"a.jpg", b"b.PNG", b"below/c.webp", b"notes.txt"]


def test_nothing_to_send_and_too_much_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"no picture to send in .*Name files"):
        read_pictures([tmp_path])
    (tmp_path / "a.png").write_bytes(bytes(3 * 2**20))
    with pytest.raises(LoadError, match=r"take 3 MiB.* at most 2 MiB.*Name fewer"):
        read_pictures([tmp_path], most_bytes=2 * 2**20)
    with pytest.raises(FileNotFoundError):
        read_pictures([tmp_path / "gone.png"])
