from pathlib import Path

import pytest
from speed.machine import native_bfloat16, usable_cores


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)


def test_cores_are_limited_by_the_quota_of_any_group_above(eight_cores: None, tmp_path: Path) -> None:
    inner = tmp_path / "pods" / "mine"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (tmp_path / "pods" / "cpu.max").write_text("350000 100000\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/pods/mine\n")
    assert usable_cores(cgroup=tmp_path, membership=membership) == 3


def test_the_older_version_of_control_groups(eight_cores: None, tmp_path: Path) -> None:
    group = tmp_path / "cpu" / "job"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("50000")
    (group / "cpu.cfs_period_us").write_text("100000")
    membership = tmp_path / "cgroup"
    membership.write_text("4:cpu,cpuacct:/job\n2:memory:/job\n")
    assert usable_cores(cgroup=tmp_path, membership=membership) == 1  # half a core is one thread


def test_without_a_quota_all_allowed_cores(eight_cores: None, tmp_path: Path) -> None:
    assert usable_cores(cgroup=tmp_path, membership=tmp_path / "none") == 8


@pytest.mark.parametrize(
    ("line", "native"),
    [("flags\t\t: fpu avx512_bf16 amx_tile", True), ("Features\t: fp asimd bf16", True), ("flags : fpu avx2", False)],
)
def test_bfloat16_is_a_flag_of_the_processor(line: str, native: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{line}\n")
    assert native_bfloat16(tmp_path / "cpuinfo") is native
