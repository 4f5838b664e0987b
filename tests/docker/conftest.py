"""The files of a deployment, read as data. No Docker engine is needed."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Instruction:
    stage: str
    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.rest)


def read_dockerfile(path: Path) -> list[Instruction]:
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    stage, instructions = "", []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stage = rest.split(" AS ")[1]
        instructions.append(Instruction(stage, word, rest.strip()))
    return instructions


@pytest.fixture(params=["service", "training"])
def dockerfile(request: pytest.FixtureRequest) -> list[Instruction]:
    return read_dockerfile(ROOT / "docker" / f"{request.param}.Dockerfile")


@pytest.fixture
def service_dockerfile() -> list[Instruction]:
    return read_dockerfile(ROOT / "docker" / "service.Dockerfile")


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded
