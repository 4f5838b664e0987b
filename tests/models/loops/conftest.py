"""Processes of their own, to see what they find, keep and say."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

_SCORE = """
import torch
from models.compact_gaussian import CompactGaussian, CompactGaussianConfig
config = CompactGaussianConfig(dimensions=6, rank=2, shrinkage=0.1, pooling=3)
scorer = CompactGaussian(config, (2, 2, 2), ((4, 4), (2, 2), (1, 1)))
for each in scorer.whitenings:
    each.fill_(1)
ready = scorer.compute_in(torch.bfloat16, torch.device("cpu"))
levels = [torch.ones(1, 2, edge, edge, dtype=torch.bfloat16) for edge in (4, 2, 1)]
print(ready.layout, round(float(ready(levels).mean()), 1))
"""
# Loops that are compiled in no time.
_SMALL = """
import numpy as np
from models.loops.bfloat16 import wide
from models.loops.compiled import compiled, warm_up
@compiled
def doubled(x):
    return 2 * wide(x)
found = []
print(warm_up(lambda: found.append(doubled(np.uint16(0x3F80)))), found[-1:])
"""

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def python() -> Python:
    """Runs code, after another piece of code, in a folder of sources, with changes to the environment."""

    def run(
        code: str, *, before: str = "", tree: Path = Path(__file__).parents[3], **environment: str
    ) -> subprocess.CompletedProcess[str]:
        given: Mapping[str, str] = {**os.environ, **environment}
        command = [sys.executable, "-c", before + code]
        return subprocess.run(command, env=given, cwd=tree, capture_output=True, text=True, timeout=300, check=True)

    return run


@pytest.fixture(scope="session")
def score() -> str:
    """Code that says what a scorer is made ready for, and a score of it."""
    return _SCORE


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Code that compiles a small loop, and says whether it could and what that gives."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.py").write_text(_SMALL)
    return f"import sys; sys.path.append({str(folder)!r}); import small"
