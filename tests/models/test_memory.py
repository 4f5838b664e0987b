from pathlib import Path

import pytest

from models.memory import available_memory

MB = 2**20


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    """A machine with 800 MB left."""
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal: 1024000 kB\nMemFree: 4 kB\nMemAvailable: {800 * 1024} kB\n")
    return path


def groups(tmp_path: Path, said: str, files: dict[str, str]) -> dict[str, Path]:
    """A tree of control groups, by the files in it, and what a process says of itself."""
    for name, content in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content)
    (tmp_path / "membership").write_text(said)
    return {"cgroup": tmp_path / "groups", "membership": tmp_path / "membership"}


def test_without_limits_it_is_what_the_machine_has_left(tmp_path: Path, meminfo: Path) -> None:
    asked = groups(tmp_path, "0::/job\n", {"job/memory.max": "max\n", "job/memory.current": "7\n"})
    assert available_memory(meminfo=meminfo, **asked) == 800 * MB


@pytest.mark.parametrize(("limit", "left"), [(500 * MB, 300 * MB), (100 * MB, 0), (2000 * MB, 800 * MB)])
def test_a_group_above_leaves_less(tmp_path: Path, meminfo: Path, limit: int, left: int) -> None:
    files = {"pods/memory.max": str(limit), "pods/memory.current": str(200 * MB), "pods/mine/memory.max": "max"}
    assert available_memory(meminfo=meminfo, **groups(tmp_path, "0::/pods/mine\n", files)) == left


def test_the_older_version_of_control_groups(tmp_path: Path, meminfo: Path) -> None:
    taken = {"memory/job/memory.limit_in_bytes": str(50 * MB), "memory/job/memory.usage_in_bytes": str(20 * MB)}
    asked = groups(tmp_path, "4:cpu,cpuacct:/other\n2:memory:/job\n", taken)
    assert available_memory(meminfo=meminfo, **asked) == 30 * MB


@pytest.mark.parametrize(("older", "name"), [(False, "inactive_file"), (True, "total_inactive_file")])
def test_files_that_were_read_long_ago_make_room(tmp_path: Path, meminfo: Path, older: bool, name: str) -> None:
    limit, taken = ("limit_in_bytes", "usage_in_bytes") if older else ("max", "current")
    files = {limit: str(500 * MB), taken: str(450 * MB), "stat": f"anon 5\n{name} {400 * MB}\nfile 7\n"}
    asked = groups(tmp_path, "0::/job\n", {f"job/memory.{each}": content for each, content in files.items()})
    assert available_memory(meminfo=meminfo, **asked) == 450 * MB


def test_a_machine_that_does_not_say_has_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"SC_PAGE_SIZE": 4096, "SC_AVPHYS_PAGES": 1000}
    monkeypatch.setattr("os.sysconf", lambda name: pages[name])
    nothing = {"meminfo": tmp_path / "none", "cgroup": tmp_path / "none", "membership": tmp_path / "none"}
    assert available_memory(**nothing) == 4096 * 1000
    monkeypatch.delattr("os.sysconf")
    assert available_memory(**nothing) == 0


def test_this_machine_has_some() -> None:
    assert available_memory() > MB
