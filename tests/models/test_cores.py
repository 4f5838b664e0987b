"""How many threads torch gets."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from models import cores
from models.cores import compute_with, on_one_core, usable_cores, use_cores


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


@pytest.mark.parametrize(("chosen", "threads"), [(None, 2), ("OMP_NUM_THREADS", 3)])
def test_torch_gets_no_more_threads_than_there_are_cores_unless_told(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, threads: int
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if chosen is not None:
        monkeypatch.setenv(chosen, "3")
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        use_cores()
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_small_work_is_done_on_one_core_and_the_thread_has_its_own_number_again() -> None:
    before = torch.get_num_threads()
    with on_one_core():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_a_new_thread_computes_with_what_it_is_told_whatever_others_do() -> None:
    """torch gives a thread that has never asked the number that was set last, anywhere."""
    before = torch.get_num_threads()

    def asked() -> int:
        compute_with(3)
        return torch.get_num_threads()

    with on_one_core(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(asked).result() == 3
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
