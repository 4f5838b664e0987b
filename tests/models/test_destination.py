"""Places that cannot be written to are found out beforehand, and none is made by asking."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from models.destination import check_file, check_folder, check_no_file
from models.errors import JigSightError


def test_what_can_be_written_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("old")
    check_file(tmp_path / "there.json", option="--json")
    check_file(tmp_path / "new" / "er" / "a.json", option="--json")
    check_folder(tmp_path / "new", option="--report")
    check_folder(tmp_path, option="--report")
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]
    assert (tmp_path / "there.json").read_text() == "old"


def test_names_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_file(Path("a.json"), option="--json")
    check_folder(Path("artifacts"), option="--artifacts")


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(JigSightError, match=r"file is a file. Give --report another"):
            check_folder(path, option="--report")
    with pytest.raises(JigSightError, match=r"file is a file. Give --json another"):
        check_file(tmp_path / "file" / "a.json", option="--json")


def test_a_folder_where_a_file_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(JigSightError, match="is a folder, and --json writes a file"):
        check_file(tmp_path, option="--json")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_what_is_write_protected(tmp_path: Path) -> None:
    (tmp_path / "locked.json").write_text("")
    (tmp_path / "locked.json").chmod(0o400)
    with pytest.raises(JigSightError, match="cannot be written to"):
        check_file(tmp_path / "locked.json", option="--json")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(JigSightError, match="Nothing can be written in"):
        check_folder(tmp_path / "locked" / "new", option="--report")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may look anywhere")
def test_what_lies_in_a_closed_folder(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    for check in (check_file, check_folder):
        with pytest.raises(JigSightError, match=r"cannot be looked up \(.+\)\. Give --json another place"):
            check(tmp_path / "closed" / "a.json", option="--json")


@pytest.mark.parametrize("check", [check_file, check_folder, check_no_file])
def test_what_the_system_does_not_look_up(tmp_path: Path, check: Callable[..., object]) -> None:
    with pytest.raises(JigSightError, match=r"cannot be looked up \(.+\)\. Give --json another place"):
        check(tmp_path / ("a" * 5000), option="--json")


@pytest.mark.parametrize("check", [check_file, check_folder, check_no_file])
def test_a_link_that_leads_nowhere(tmp_path: Path, check: Callable[..., object]) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "a.json")
    for path in (tmp_path / "link", tmp_path / "link" / "deeper"):
        with pytest.raises(JigSightError, match=r"link is a link to .+gone/a\.json, .+ give --json another place"):
            check(path, option="--json")


def test_a_link_to_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "there.json")
    check_file(tmp_path / "link", option="--json")
    assert (tmp_path / "there.json").read_text() == "old"


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="there is no /proc")
def test_what_nobody_can_write_to_though_root_may(tmp_path: Path) -> None:
    with pytest.raises(JigSightError, match=r"Nothing can be written in /proc \(.+\)\. Give --json another place"):
        check_file(Path("/proc/new/a.json"), option="--json")
    with pytest.raises(JigSightError, match=r"/proc/version cannot be written to \(.+\)\. Give --json another file"):
        check_file(Path("/proc/version"), option="--json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name")
def test_a_pipe_is_not_opened_by_asking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    check_file(tmp_path / "pipe", option="--json")  # opening it would wait for a reader
