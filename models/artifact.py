"""The artifact: one `.safetensors` file per category and version. The only reader and writer of such files.

`docs/artifact.md` gives the format byte by byte. Loading trusts nothing: sizes, format version, names, shapes,
types, hash and finiteness are checked, in that order, before a tensor is used; nothing is ever unpickled. What is
loaded has left its file: nothing that happens to the file later reaches a detector.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from models.calibration import Calibration
from models.detector import Detector, build_detector
from models.durable import sync
from models.errors import ArtifactError, ArtifactTooLarge
from models.fused_backbone import FusedBackbone
from models.manifest import FORMAT, READABLE, Manifest
from models.precision import Precision, pick_precision, stored_dtype
from models.runner import Runner, runner_for
from models.soundness import check_constants, check_finite, check_ignored, check_threshold
from models.tensor_file import COPY, DTYPES, Place, open_tensors, without_duplicates
from models.verdict import Judgement, judge

SUFFIX = ".safetensors"
METADATA_KEY = "jigsight"
SCORES = "calibration.scores"
VERSION_DIGITS = 12
_FAULTS = (ArtifactError, OSError, ValueError, RuntimeError, MemoryError)
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_OLDER = {"scorer.directions": "F16"}  # types that a tensor may have as well, and then keeps


@dataclass(frozen=True)
class Artifact:
    """A loaded artifact: a detector in eval mode on `device`, and what it takes to judge with it. `runner` runs it.

    As `load` gives it, it can also be trained further; as `ready` does, it is much faster.
    """

    path: Path
    version: str
    manifest: Manifest
    detector: Detector
    calibration: Calibration
    device: torch.device
    runner: Runner

    def judge(
        self, score: float, score_map: NDArray[np.float32], *, size: tuple[int, int], threshold: float | None = None
    ) -> Judgement:
        """The verdict on a picture of `size` (height, width), at the artifact's own threshold by default.

        Regions reach down to the manifest's `threshold.pixel`, whatever the threshold.
        """
        return judge(
            score,
            score_map,
            threshold=self.manifest.threshold.value if threshold is None else threshold,
            calibration=self.calibration,
            preprocess=self.manifest.detector.preprocess,
            size=size,
            pixel_threshold=self.manifest.threshold.pixel,
        )

    def ready(self, device: torch.device | str, *, precision: Precision = "auto") -> "Artifact":
        """The same, ready to judge on a device. It shares memory with this one, which should not be held any more.

        Raises ArtifactError or DeviceError.
        """
        try:
            place = torch.device(device)
            detector = _move(self.detector, place, precision)
            runner = runner_for(detector, place)
        except _FAULTS as error:
            raise _refusal(self.path, error) from error
        return replace(self, detector=detector, device=place, runner=runner)


def save(detector: Detector, manifest: Manifest, scores: Tensor, *, folder: Path) -> Path:
    """Write `folder/<category>/<version>.safetensors` whole or not at all, and return its path.

    `scores` (n,) float32 are the out-of-sample scores of the good training images.
    """
    if isinstance(detector.backbone, FusedBackbone):
        raise TypeError("a detector that was made ready to score has no weights to save")
    directory = folder / manifest.category
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().cpu().to(stored_dtype(name, tensor)).contiguous()
        for name, tensor in detector.state_dict().items()
    }
    tensors[SCORES] = scores.detach().cpu().float().contiguous()
    manifest = manifest.model_copy(update={"format": FORMAT})
    handle, name = tempfile.mkstemp(dir=directory, prefix=".incoming-")
    os.close(handle)
    incoming = Path(name)
    try:
        save_file(tensors, incoming, metadata={METADATA_KEY: manifest.to_json()})
        incoming.chmod(0o644)
        sync(incoming)
        path = directory / (_digest(incoming)[:VERSION_DIGITS] + SUFFIX)
        incoming.replace(path)
        sync(directory)
    finally:
        incoming.unlink(missing_ok=True)
    return path


def load(path: Path) -> Artifact:
    """Read and verify an artifact, in float32 on the CPU. Raises ArtifactError, naming the file and what is wrong.

    It takes as much memory as its tensors, and once more the largest of them. ArtifactTooLarge if that is not there.
    """
    try:
        with open_tensors(path) as file:
            manifest = _read_manifest(file.metadata)
            tensors, digest = file.tensors(_check_places(file.places, manifest))
        version = _check_hash(path, digest)
        check_finite(tensors)
        check_constants(tensors, manifest.detector)
        calibration = Calibration(tensors[SCORES])
        check_threshold(manifest.threshold, calibration)
        check_ignored(manifest.ignored, tensors["smoothing.keep"])
        detector = _assemble(manifest, tensors)
        detector.check()
    except _FAULTS as error:
        raise _refusal(path, error) from error
    cpu = torch.device("cpu")
    return Artifact(
        path=path,
        version=version,
        manifest=manifest,
        detector=detector,
        calibration=calibration,
        device=cpu,
        runner=runner_for(detector, cpu),
    )


def verify(path: Path) -> Manifest:
    """The manifest of a file that is whole: its tensors are there, of the right shapes, and its name is its hash.

    The tensors' values are looked at by `load` alone. Raises ArtifactError.
    """
    try:
        with open_tensors(path) as file:
            manifest = _read_manifest(file.metadata)
            _check_places(file.places, manifest)
            _check_hash(path, file.digest())
            return manifest
    except _FAULTS as error:
        raise _refusal(path, error) from error


def read_manifest(path: Path) -> Manifest:
    """The manifest alone, without its tensors and without the check of the hash."""
    try:
        with open_tensors(path) as file:
            return _read_manifest(file.metadata)
    except _FAULTS as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> ArtifactError:
    kind = type(error) if isinstance(error, ArtifactError) else ArtifactError
    reason = str(error)
    if isinstance(error, MemoryError):
        kind, reason = ArtifactTooLarge, "there is not enough memory to load it."
    elif not isinstance(error, ArtifactError):
        reason = f"it cannot be read ({error})."
    return kind(f"{path} is not used: {reason}")


def _read_manifest(metadata: Mapping[str, str]) -> Manifest:
    if METADATA_KEY not in metadata:
        raise ArtifactError(f"its metadata has no '{METADATA_KEY}' entry; it was not made by `jigsight train`.")
    try:
        document = json.loads(metadata[METADATA_KEY], object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"its manifest is not JSON ({error}).") from error
    version = document.get("format") if isinstance(document, dict) else None
    if version not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise ArtifactError(f"its format version is {version!r}; this JigSight reads {known}. Train it again.")
    try:
        manifest = Manifest.model_validate(document)
        # What cannot be written again (too deep, infinite, half a surrogate pair) must not come up later.
        manifest.to_json().encode()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"its manifest is wrong at {where}: {first['msg']}.") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"its manifest holds a value that is not plain JSON ({error}).") from error
    return manifest


def _check_hash(path: Path, digest: str) -> str:
    version = digest[:VERSION_DIGITS]
    if path.name != version + SUFFIX:
        raise ArtifactError(f"its name is not the hash of its content, so it was altered, damaged or renamed. {COPY}")
    return version


def _check_places(places: Mapping[str, Place], manifest: Manifest) -> dict[str, torch.dtype]:
    """Names, shapes and types from the header against the manifest's; the types that the detector computes with."""
    with torch.device("meta"):  # shapes without memory, whatever sizes the manifest claims
        wanted = build_detector(manifest.detector).state_dict()
    odd = sorted(places.keys() ^ (wanted.keys() | {SCORES}))
    if odd:
        raise ArtifactError(f"tensors are missing or left over: {', '.join(odd[:5])}.")
    for name, tensor in wanted.items():
        place, expected = places[name], _NAMES[stored_dtype(name, tensor)]
        if place.shape != tuple(tensor.shape) or place.dtype not in (expected, _OLDER.get(name)):
            raise ArtifactError(
                f"tensor {name} is {place.dtype} {place.shape}; its manifest asks for {expected} {tuple(tensor.shape)}."
            )
    scores = places[SCORES]
    if scores.dtype != "F32" or scores.shape != (manifest.dataset.images,):
        raise ArtifactError(f"{SCORES} must hold one F32 score for each of {manifest.dataset.images} images.")
    return {name: tensor.dtype for name, tensor in wanted.items() if name not in _OLDER}


def _assemble(manifest: Manifest, tensors: dict[str, Tensor]) -> Detector:
    with torch.device("meta"):
        detector = build_detector(manifest.detector)
    detector.load_state_dict({n: t for n, t in tensors.items() if n != SCORES}, assign=True)
    return detector.eval().requires_grad_(False)


def _move(detector: Detector, place: torch.device, precision: Precision) -> Detector:
    try:
        return detector.for_scoring(place, pick_precision(precision, place))
    except torch.OutOfMemoryError as error:
        need = sum(tensor.nbytes for tensor in detector.state_dict().values()) / 1e6
        raise ArtifactTooLarge(
            f"it does not fit on {place}: it needs about {need:,.0f} MB there. Use fewer categories, --device cpu, "
            "or train with a smaller scorer (--recipe small)."
        ) from error
    except (RuntimeError, AssertionError) as error:  # no driver, no such number; torch without CUDA asserts
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ArtifactError(f"it cannot be put on {place} ({reason}). Use --device cpu.") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
