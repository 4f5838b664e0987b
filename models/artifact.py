"""The artifact: one `.safetensors` file per category and version. The only reader and writer of such files.

`docs/artifact.md` gives the format byte by byte. Loading trusts nothing: sizes, format version, hash, names,
shapes, types and finiteness are checked, in that order, before a tensor is used; nothing is ever unpickled.
"""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.calibration import Calibration
from models.detector import Detector, build_detector
from models.durable import sync
from models.errors import ArtifactError
from models.manifest import FORMAT, Manifest
from models.precision import stored_dtype
from models.soundness import check_constants, check_finite, check_ignored, check_threshold
from models.verdict import Judgement, judge

SUFFIX = ".safetensors"
METADATA_KEY = "jigsight"
SCORES = "calibration.scores"
VERSION_DIGITS = 12
_MAX_HEADER_BYTES = 16 * 2**20
_COPY = "Copy it again, under its own name, from where it was trained."
_FAULTS = (ArtifactError, OSError, SafetensorError, ValueError, RuntimeError)
_DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8", torch.bool: "BOOL", torch.float16: "F16"}


@dataclass(frozen=True)
class Artifact:
    """A loaded artifact: a detector in eval mode on `device`, and what it takes to judge with it."""

    path: Path
    version: str
    manifest: Manifest
    detector: Detector
    calibration: Calibration
    device: torch.device

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


def save(detector: Detector, manifest: Manifest, scores: Tensor, *, folder: Path) -> Path:
    """Write `folder/<category>/<version>.safetensors` whole or not at all, and return its path.

    `scores` (n,) float32 are the out-of-sample scores of the good training images.
    """
    directory = folder / manifest.category
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().cpu().to(stored_dtype(name, tensor)).contiguous()
        for name, tensor in detector.state_dict().items()
    }
    tensors[SCORES] = scores.detach().cpu().float().contiguous()
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


def load(path: Path, *, device: torch.device | str = "cpu") -> Artifact:
    """Read and verify an artifact. Raises ArtifactError, naming the file and what is wrong with it."""
    try:
        _check_frame(path)
        with safe_open(path, framework="pt") as file:
            manifest = _read_manifest(file.metadata() or {})
            version = _check_hash(path)
            tensors = _read_tensors(file, manifest)
        check_finite(tensors)
        check_constants(tensors, manifest.detector)
        calibration = Calibration(tensors[SCORES])
        check_threshold(manifest.threshold, calibration)
        check_ignored(manifest.ignored, tensors["smoothing.keep"])
        place = torch.device(device)
        detector = _assemble(manifest, tensors)
        detector.check()
        detector = _move(detector, place)
    except _FAULTS as error:
        raise _refusal(path, error) from error
    return Artifact(
        path=path, version=version, manifest=manifest, detector=detector, calibration=calibration, device=place
    )


def read_manifest(path: Path) -> Manifest:
    """The manifest alone, without its tensors and without the check of the hash."""
    try:
        _check_frame(path)
        with safe_open(path, framework="pt") as file:
            return _read_manifest(file.metadata() or {})
    except _FAULTS as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> ArtifactError:
    if isinstance(error, ArtifactError):
        reason = str(error)
    elif isinstance(error, SafetensorError):
        reason = f"it is truncated or damaged. {_COPY}"
    else:
        reason = f"it cannot be read ({error})."
    return ArtifactError(f"{path} is not used: {reason}")


def _check_frame(path: Path) -> None:
    """The header's claimed length against the file's, before anybody allocates for it."""
    if not path.is_file():
        raise ArtifactError("there is no such file.")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
    claimed = int.from_bytes(start[:8], "little")
    if len(start) < 9 or start[8:9] != b"{":
        raise ArtifactError("it is not a safetensors file; artifacts are made by `jigsight train`.")
    if claimed > _MAX_HEADER_BYTES:
        raise ArtifactError(f"its header claims {claimed:,} bytes; at most {_MAX_HEADER_BYTES:,} are read.")
    if 8 + claimed > size:
        raise ArtifactError(f"it is truncated: {size:,} bytes, and its header alone claims {claimed:,}. {_COPY}")


def _read_manifest(metadata: dict[str, str]) -> Manifest:
    if METADATA_KEY not in metadata:
        raise ArtifactError(f"its metadata has no '{METADATA_KEY}' entry; it was not made by `jigsight train`.")
    try:
        document = json.loads(metadata[METADATA_KEY], object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"its manifest is not JSON ({error}).") from error
    version = document.get("format") if isinstance(document, dict) else None
    if version != FORMAT:
        raise ArtifactError(f"its format version is {version!r}; this JigSight reads {FORMAT}. Train it again.")
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


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Readers of JSON differ in which of two equal keys they believe."""
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("an object names a key twice")
    return document


def _check_hash(path: Path) -> str:
    version = _digest(path)[:VERSION_DIGITS]
    if path.name != version + SUFFIX:
        raise ArtifactError(f"its name is not the hash of its content, so it was altered, damaged or renamed. {_COPY}")
    return version


def _read_tensors(file: Any, manifest: Manifest) -> dict[str, Tensor]:
    """Names, shapes and types from the header against the manifest's, then the tensors themselves.

    `file` is safetensors' `safe_open`, which carries no types.
    """
    with torch.device("meta"):  # shapes without memory, whatever sizes the manifest claims
        wanted = build_detector(manifest.detector).state_dict()
    found = set(file.keys())
    odd = sorted(found ^ (wanted.keys() | {SCORES}))
    if odd:
        raise ArtifactError(f"tensors are missing or left over: {', '.join(odd[:5])}.")
    for name, tensor in wanted.items():
        piece = file.get_slice(name)
        shape, dtype = tuple(piece.get_shape()), piece.get_dtype()
        expected = _DTYPES[stored_dtype(name, tensor)]
        if shape != tuple(tensor.shape) or dtype != expected:
            raise ArtifactError(
                f"tensor {name} is {dtype} {shape}; its manifest asks for {expected} {tuple(tensor.shape)}."
            )
    scores = file.get_slice(SCORES)
    if scores.get_dtype() != "F32" or scores.get_shape() != [manifest.dataset.images]:
        raise ArtifactError(f"{SCORES} must hold one F32 score for each of {manifest.dataset.images} images.")
    tensors = {name: file.get_tensor(name) for name in found}
    return {name: tensor.to(wanted[name].dtype) if name in wanted else tensor for name, tensor in tensors.items()}


def _assemble(manifest: Manifest, tensors: dict[str, Tensor]) -> Detector:
    with torch.device("meta"):
        detector = build_detector(manifest.detector)
    detector.load_state_dict({n: t for n, t in tensors.items() if n != SCORES}, assign=True)
    return detector.eval().requires_grad_(False)


def _move(detector: Detector, place: torch.device) -> Detector:
    try:
        return detector.to(place)
    except torch.OutOfMemoryError as error:
        need = sum(tensor.nbytes for tensor in detector.state_dict().values()) / 1e6
        raise ArtifactError(
            f"it does not fit on {place}: it needs about {need:,.0f} MB there. Use fewer categories, --device cpu, "
            "or train with a smaller scorer (--recipe small)."
        ) from error
    except (RuntimeError, AssertionError) as error:  # no driver, no such number; torch without CUDA asserts
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ArtifactError(f"it cannot be put on {place} ({reason}). Use --device cpu.") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
