"""The images' locks: all that the project needs and nothing that only its tests need, each by its hash."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENT = re.compile(r"^([a-z0-9][a-z0-9-]*)==([^\s;\\]+)", re.MULTILINE)
CUDA = re.compile(r"torch|torchvision|triton|cuda-.*|nvidia-.*")
EXTRAS = {"service": ("postgres", "s3"), "service-cpu": ("postgres", "s3"), "training": ("training",)}


def locked(name: str) -> dict[str, str]:
    return dict(REQUIREMENT.findall((ROOT / "docker" / name).read_text()))


def wanted(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return {re.match(r"[A-Za-z0-9-]+", line)[0].lower() for line in lines}


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_has_all_that_the_project_needs(name: str) -> None:
    missing = wanted(*EXTRAS[name]) - set(locked(f"{name}.lock"))
    assert missing == ({"torch", "torchvision"} if name == "service-cpu" else set()), "run `make lock-images`"


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_has_nothing_that_only_tests_need(name: str) -> None:
    assert not set(locked(f"{name}.lock")) & {"pytest", "hypothesis", "schemathesis", "mypy", "ruff", "scipy"}


@pytest.mark.parametrize("path", sorted((ROOT / "docker").glob("*.lock")), ids=lambda path: path.stem)
def test_every_package_is_known_by_its_hash(path: Path) -> None:
    entries = path.read_text().replace("\\\n", " ").splitlines()
    assert entries
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)


def test_the_cpu_image_differs_by_pytorch_alone() -> None:
    cuda, cpu = locked("service.lock"), locked("service-cpu.lock")
    assert all(cuda[name] == version for name, version in cpu.items())
    assert all(CUDA.fullmatch(name) for name in set(cuda) - set(cpu))
    assert locked("torch-cpu.txt") == {name: f"{cuda[name]}+cpu" for name in ("torch", "torchvision")}
