"""anomalib itself; only where JIGSIGHT_PEERS_VENV names an environment that `jigsight benchmark --peers` made."""

import os
import subprocess
from pathlib import Path

import pytest

from training.benchmark.peers import SCRIPT

COMPARISON = """
import sys
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
import peer_script

for dimensions in (24, 400):  # fewer than the projection has, and more
    for pool in (40, 4096):
        peer_script._POOL = pool
        torch.manual_seed(0)
        features = torch.randn(2000, dimensions) * torch.linspace(0.1, 2, dimensions)
        chosen = []
        for greedy in (peer_script.KCenterGreedy, peer_script.QuickGreedy):
            torch.manual_seed(1)
            one = greedy(embedding=features, sampling_ratio=0.1)
            one.model.random_state = np.random.RandomState(2)
            chosen.append(one.select_coreset_idxs())
        assert len(set(chosen[1])) == 200
        assert len(set(chosen[0]) & set(chosen[1])) >= 195, (dimensions, pool)
"""


@pytest.mark.slow
@pytest.mark.skipif("JIGSIGHT_PEERS_VENV" not in os.environ, reason="needs JIGSIGHT_PEERS_VENV")
def test_the_quick_coreset_is_anomalibs() -> None:
    python = Path(os.environ["JIGSIGHT_PEERS_VENV"]) / "bin" / "python"
    command = [str(python), "-W", "ignore", "-c", COMPARISON, str(SCRIPT.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
