"""The folder: what is sound, what is refused and why, and that no refusal is for ever."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from models import artifact
from models.artifact import verify
from models.errors import ArtifactError
from models.manifest import Manifest
from service.registry import scan
from service.registry.scan import Folder

Put = Callable[..., Path]
Library = dict[str, Path]


def test_files_are_ordered_by_age_and_then_by_version(put: Put, folder: Path, library: Library) -> None:
    put("b", "a", "c")
    assert list(Folder(folder).look().sound["plate"]) == [library[name].stem for name in "abc"]
    for path in (folder / "plate").iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    versions = sorted(library[name].stem for name in "abc")
    assert list(Folder(folder).look().sound["plate"]) == versions


def test_bad_files_are_named_and_the_others_are_sound(
    put: Put, folder: Path, library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    put("ring")
    (folder / "plate").mkdir()
    cut = folder / "plate" / library["a"].name
    cut.write_bytes(library["a"].read_bytes()[:-1])
    moved = folder / "elsewhere" / library["b"].name
    moved.parent.mkdir()
    shutil.copyfile(library["b"], moved)
    (folder / "plate" / "dangling.safetensors").symlink_to(folder / "nowhere")
    found = Folder(folder).look()
    assert list(found.sound) == ["ring"]
    reasons = {refusal.file: refusal.reason for refusal in found.refused}
    assert set(reasons) == {f"plate/{cut.name}", f"elsewhere/{moved.name}", "plate/dangling.safetensors"}
    assert reasons[f"plate/{cut.name}"].startswith("it is truncated or damaged")  # the file is named already
    assert f"plate/{moved.name}" in reasons[f"elsewhere/{moved.name}"]
    assert not any(str(folder) in reason for reason in reasons.values())
    assert str(cut) in caplog.text


def test_a_refusal_is_logged_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "plate").mkdir()
    (folder / "plate" / "0123456789ab.safetensors").write_bytes(b"not an artifact")
    looking = Folder(folder)
    for _ in range(3):
        assert len(looking.look().refused) == 1
    assert caplog.text.count("not served") == 1


def test_a_file_that_is_being_copied_is_refused_until_it_is_whole(folder: Path, library: Library) -> None:
    """Grown piece by piece, and also where the copy reserves the whole size first and the times are alike."""
    content = library["a"].read_bytes()
    path = folder / "plate" / library["a"].name
    path.parent.mkdir()
    looking = Folder(folder)
    for count in (0, 5, 1000, len(content) // 2):
        path.write_bytes(content[:count])
        assert looking.look().sound == {}
    path.write_bytes(bytes(len(content)))
    before = path.stat()
    assert looking.look().sound == {}
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert list(looking.look().sound["plate"]) == [path.stem]


def test_hidden_files_are_left_alone(folder: Path, library: Library) -> None:
    for hidden in ("plate/.incoming-x.safetensors", ".trash/0123456789ab.safetensors"):
        (folder / hidden).parent.mkdir()
        (folder / hidden).write_bytes(b"half a file")
    found = Folder(folder).look()
    assert (found.sound, found.refused) == ({}, ())


def test_a_file_that_has_not_changed_is_not_read_again(put: Put, folder: Path) -> None:
    path = put("a")
    looking = Folder(folder)
    first = looking.look().sound["plate"][path.stem]
    assert looking.look().sound["plate"][path.stem] is first
    os.utime(path)
    assert looking.look().sound["plate"][path.stem] is not first


def test_what_could_not_be_loaded_is_refused_until_it_changes(put: Put, folder: Path) -> None:
    path = put("a")
    looking = Folder(folder)
    file = looking.look().sound["plate"][path.stem]
    looking.refuse(file, ArtifactError(f"{path} is not used: its numbers are odd."))
    found = looking.look()
    assert found.sound == {}
    assert [(each.file, each.reason) for each in found.refused] == [(f"plate/{path.name}", "its numbers are odd.")]
    os.utime(path)
    assert looking.look().sound["plate"]


def test_a_missing_folder_is_said_and_may_come(folder: Path, put: Put) -> None:
    folder.rmdir()
    looking = Folder(folder)
    (refusal,) = looking.look().refused
    assert (refusal.file, "jigsight train" in refusal.reason) == (".", True)
    put("a")
    assert looking.look().refused == ()


def test_a_file_that_changes_while_it_is_read_is_read_again(
    put: Put, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a")
    looking = Folder(folder)

    def read(file: Path) -> Manifest:
        manifest = verify(file)
        os.truncate(file, 1000)
        return manifest

    with monkeypatch.context() as patch:
        patch.setattr(scan, "verify", read)
        looking.look()
    assert looking.look().sound == {}


@pytest.mark.parametrize("lack", [PermissionError(13, "Permission denied"), OSError(24, "Too many"), MemoryError()])
def test_a_refusal_for_what_is_no_fault_of_the_file_is_not_kept(
    put: Put, folder: Path, monkeypatch: pytest.MonkeyPatch, lack: Exception
) -> None:
    put("a")
    looking = Folder(folder)

    def fail(*_: object) -> None:
        raise lack

    with monkeypatch.context() as patch:
        patch.setattr(artifact, "open_tensors", fail)
        patch.setattr(scan, "_SETTLED_NS", 0)  # as if it had lain there for long
        found = looking.look()
        assert (found.sound, len(found.refused)) == ({}, 1)
    assert looking.look().sound["plate"]


def test_a_change_that_hides_its_time_is_noticed(put: Put, folder: Path) -> None:
    path = put("a")
    looking = Folder(folder)
    assert looking.look().sound
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"\xff" * 100)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert looking.look().sound == {}
