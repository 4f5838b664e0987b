"""A peer's cell, with a script in anomalib's place: what it is asked, and what is made of its answer."""

import sys
from pathlib import Path

import pytest

from models.errors import JigSightError
from training.benchmark import peers
from training.benchmark.cells import CellRequest
from training.benchmark.measure import main, measure
from training.benchmark.peers import held_out
from training.progress import Progress
from training.samples import write_category

# Scores by the largest difference from the average good tile; checks that the weights fit torchvision's network.
STAND_IN = """
import json, sys
import numpy as np, torchvision
from safetensors.torch import load_file

request = json.load(open(sys.argv[1]))
found = getattr(torchvision.models, request["network"])(weights=None).load_state_dict(
    load_file(request["weights"]), strict=False
)
assert not found.unexpected_keys, found.unexpected_keys
assert not [name for name in found.missing_keys if name.startswith(tuple(f"{each}." for each in request["layers"]))]
assert request["levels"] == ["features.3", "features.6", "features.13"]
assert (request["settings"]["channels"], request["settings"]["levels"]) == (100, [1, 2, 3])
train, test = (np.load(request[name]).astype(np.float32) for name in ("train", "test"))
assert train.shape == (10, 3, 224, 224)
maps = np.abs(test - train.mean(0)).max(1)
held = np.array([5.0, 1.0])
assert len(request["held_out"]) == 2
np.savez(request["output"], scores=maps.max((1, 2)), maps=maps, held_scores=held, seconds=2.0, milliseconds=30.0,
         bytes=1000, peak_bytes=2000, device_bytes=0, threads=3)
"""


@pytest.fixture
def request_(artifact_weights: Path, tmp_path: Path) -> CellRequest:
    write_category(tmp_path / "parts", "flange", train=10, test_good=2, test_defective=1, size=64)
    (tmp_path / "out").mkdir()
    return CellRequest(
        data=tmp_path / "parts",
        category="flange",
        method="anomalib_padim",
        key="k",
        arch="mobilenet_v2",
        weights=str(artifact_weights),
        textures=None,
        false_reject_rate=0.4,
        device="cpu",
        output=tmp_path / "out",
        peer_python=Path(sys.executable),
    )


@pytest.fixture
def artifact_weights(tmp_path: Path) -> Path:
    """A state dict of the whole of torchvision's network, as labs have it."""
    import torchvision
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file(torchvision.models.mobilenet_v2(weights=None).state_dict(), path)
    return path


def script(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "script.py"
    path.write_text(text)
    monkeypatch.setattr(peers, "SCRIPT", path)


def test_a_peers_scores_are_judged_by_our_definitions(
    request_: CellRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(STAND_IN, tmp_path, monkeypatch)
    cell = measure(request_, Progress.silent())
    figures = cell.figures
    assert figures is not None
    assert (cell.kind, cell.threads, cell.device) == ("object", 3, "cpu")
    assert figures.threshold == 5.0  # the second of two held-out scores: ceil(0.6 * 3)
    assert (figures.false_reject_rate, figures.miss_rate) == (1.0, 0.0)
    assert figures.image_auroc is not None
    assert figures.pixel_auroc is not None
    assert figures.pixel_auroc > 0.6
    assert figures.aupro is not None
    assert figures.milliseconds > 30.0  # resizing is added
    assert (figures.training_seconds, figures.artifact_bytes, figures.peak_bytes) == (2.0, 1000, 2000)
    assert list(request_.output.iterdir()) == []


def test_a_script_that_fails_fails_its_cell_with_its_last_words(
    request_: CellRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("raise SystemExit('no such layer')", tmp_path, monkeypatch)
    with pytest.raises(JigSightError, match="status 1: no such layer"):
        measure(request_, Progress.silent())


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"weights": "none"}, "real weights"), ({"peer_python": None}, "--peers"), ({"category": "nut"}, "'nut'")],
)
def test_what_a_peer_cannot_do_is_in_its_cell(request_: CellRequest, fields: dict[str, object], words: str) -> None:
    from rich.console import Console

    from training.benchmark.cells import cell_path, read_cell

    asked = request_.model_copy(update=fields)
    file = asked.output / "request.json"
    file.write_text(asked.model_dump_json())
    main(file, Console(quiet=True))
    cell = read_cell(cell_path(asked.output, asked.category, "anomalib_padim"))
    assert cell is not None
    assert (cell.status, cell.key) == ("failed", "k")
    assert words in str(cell.error)


def test_a_fifth_is_held_out_always_the_same_and_never_none() -> None:
    assert held_out(320) == held_out(320)
    assert len(held_out(320)) == len(set(held_out(320))) == 64
    assert max(held_out(320)) < 320
    assert len(held_out(2)) == 1
