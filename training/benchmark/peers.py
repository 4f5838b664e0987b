"""A peer's cell: anomalib in its own environment on our tiles with our weights, judged by our metrics.

anomalib's own threshold is chosen on test pictures, so it is not used. Instead a fifth of the good training pictures
is held out of a first training, and the conformal rule is applied to their scores, as to those of our methods; the
second training, on all of them, is the one that is measured.
"""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from models.backbone import build_backbone, weight_prefix
from models.calibration import Calibration
from models.device import pick_device
from models.errors import JigSightError
from models.manifest import Kind
from models.preprocess import Preprocess, PreprocessConfig
from models.weights import NONE, load_weights
from training.ahead import read_ahead
from training.arrays import Rgb
from training.benchmark import speed
from training.benchmark.cells import Cell, CellRequest, Figures
from training.benchmark.kinds import known_kind
from training.benchmark.method import Peer, resolved
from training.datasets import TestSample, test_samples, training_images
from training.foreground import decide_kind
from training.metrics import aupro, image_auroc, pixel_auroc
from training.picture_files import read_image, read_mask, read_taken
from training.progress import Progress

SCRIPT: Final = Path(__file__).with_name("peer_script.py")
SEED: Final = 0
_HELD_OUT = 5  # one in so many


def measure_peer(request: CellRequest, peer: Peer, progress: Progress) -> Cell:
    """Train and measure a peer on one category."""
    samples = test_samples(request.data, request.category)
    preprocess = Preprocess(PreprocessConfig(reduced_jpeg=True))
    with tempfile.TemporaryDirectory(dir=request.output) as name:
        folder = Path(name)
        train = _write_tiles(folder / "train.npy", training_images(request.data, request.category), preprocess)
        _write_tiles(folder / "test.npy", [sample.path for sample in samples], preprocess)
        device = pick_device(request.device)
        document = _document(request, peer, folder, images=len(train), device=device.type)
        (folder / "request.json").write_text(json.dumps(document), encoding="utf-8")
        with progress.step(request.method, 1) as step:
            _run_script(request.peer_python, folder / "request.json")
            step.advance()
        with np.load(document["output"]) as file:
            found = {entry: file[entry] for entry in file.files}
    pictures = [read_image(sample.path) for sample in samples[: speed.TIMED]]
    resizing = speed.median_milliseconds(preprocess.resize, pictures)
    return Cell(
        category=request.category,
        method=request.method,
        key=request.key,
        kind=_kind(request.category, train),
        device=device.type,
        threads=int(found["threads"]),
        figures=_figures(found, samples, preprocess, rate=request.false_reject_rate, resizing=resizing),
    )


def held_out(images: int) -> list[int]:
    """Which of the training pictures set a peer's threshold: a fifth of them, by chance, at least one."""
    order = np.random.default_rng([SEED, images]).permutation(images)
    return sorted(order[: max(1, images // _HELD_OUT)].tolist())


def _write_tiles(path: Path, pictures: Sequence[Path], preprocess: Preprocess) -> NDArray[np.uint8]:
    """(n, 3, s, s) uint8: what our own detectors would see."""
    taken = read_ahead(partial(read_taken, preprocess=preprocess), pictures)
    tiles = torch.stack([each.tile for each in taken]).numpy()
    np.save(path, tiles)
    return tiles


def _document(request: CellRequest, peer: Peer, folder: Path, *, images: int, device: str) -> dict[str, Any]:
    """What the script in the other environment is asked."""
    if request.weights == NONE:
        raise JigSightError("Peers are compared on real weights: give --weights imagenet or a file, or leave --peers.")
    backbone, prefix = build_backbone(request.arch), weight_prefix(request.arch)
    load_weights(backbone, request.arch, request.weights)
    state = {prefix + name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    config = PreprocessConfig()
    return {
        "model": peer.model,
        "settings": resolved(peer.settings, request.arch),
        "network": request.arch,
        "weights": str(folder / "weights.safetensors"),
        "layers": [prefix + name for name in backbone],
        "levels": [prefix + name for name in backbone.ends],
        "mean": config.mean,
        "std": config.std,
        "device": device,
        "seed": SEED,
        "train": str(folder / "train.npy"),
        "test": str(folder / "test.npy"),
        "held_out": held_out(images),
        "timed": speed.TIMED,
        "output": str(folder / "found.npz"),
    }


def _run_script(python: Path | None, document: Path) -> None:
    if python is None:
        raise JigSightError("A peer needs an environment with anomalib: add --peers to make one.")
    done = subprocess.run([str(python), "-W", "ignore", str(SCRIPT), str(document)], capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise JigSightError(f"anomalib failed with status {done.returncode}: {said[-1] if said else 'no word'}")


def _kind(category: str, tiles: NDArray[np.uint8]) -> Kind:
    known = known_kind(category)
    return decide_kind([tile.transpose(1, 2, 0) for tile in tiles]).kind if known == "auto" else known


def _figures(
    found: dict[str, Any], samples: Sequence[TestSample], preprocess: Preprocess, *, rate: float, resizing: float
) -> Figures:
    """The peer's scores (n,) and maps (n, s, s) by our definitions."""
    scores, maps = found["scores"], found["maps"]
    defective = np.array([not sample.is_good for sample in samples])
    threshold = Calibration(found["held_scores"]).threshold(rate)
    rejected = scores > threshold
    known = np.array([sample.is_good or sample.mask is not None for sample in samples])
    masks = np.stack([_mask(sample, preprocess) for sample, kept in zip(samples, known, strict=True) if kept])
    masked = bool(masks.any())
    return Figures(
        image_auroc=image_auroc(scores, defective),
        pixel_auroc=pixel_auroc(maps[known], masks) if masked else None,
        aupro=aupro(maps[known], masks) if masked else None,
        false_reject_rate=float(rejected[~defective].mean()) if not defective.all() else None,
        miss_rate=float((~rejected[defective]).mean()) if defective.any() else None,
        threshold=threshold,
        threshold_rule="conformal, a fifth held out",
        training_seconds=round(float(found["seconds"]), 3),
        milliseconds=round(float(found["milliseconds"]) + resizing, 3),
        artifact_bytes=int(found["bytes"]),
        peak_bytes=int(found["peak_bytes"]),
        device_bytes=int(found["device_bytes"]),
    )


def _mask(sample: TestSample, preprocess: Preprocess) -> NDArray[np.bool_]:
    if sample.mask is None:
        size = preprocess.config.image_size
        return np.zeros((size, size), np.bool_)
    picture: Rgb = read_image(sample.path)
    return preprocess.resize_mask(read_mask(sample.mask, size=(picture.shape[0], picture.shape[1]))).numpy()
