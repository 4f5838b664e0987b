"""Backbone weights: where they come from, and whether they fit.

Four sources: torchvision's ImageNet weights (V1, downloaded once into torch's cache), a state dict in a file
(`.pth` read without unpickling code, or `.safetensors`), the backbone inside a JigSight artifact (verified by
`models.artifact` like any other), or none.
"""

import hashlib
import pickle
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import get_model_weights

from models import artifact
from models.backbone import Architecture, Backbone, layers_past_the_cut, weight_prefix
from models.errors import ArtifactError, WeightsError
from models.preprocess import PreprocessConfig
from models.whole_numbers import renormalise

IMAGENET = "imagenet"
NONE = "none"
_IMAGENETS = PreprocessConfig()
_SHOWN = 5
_DOWNLOAD_SECONDS = 20.0  # without a byte


def load_weights(
    backbone: Backbone, arch: Architecture, source: str, *, preprocess: PreprocessConfig = _IMAGENETS
) -> str:
    """Load `source` ("imagenet", "none" or a file) into `backbone`; return a fingerprint of what is in it.

    Weights are for pictures that are normalised as `preprocess` says: an artifact's are made to be. The fingerprint is
    the SHA-256 of the loaded tensors, so it is the same whatever file they came in.
    Raises WeightsError if the weights cannot be had or do not fit.
    """
    if source != NONE:
        state = _imagenet(arch) if source == IMAGENET else _read(Path(source), arch, preprocess)
        _fit(backbone, _kept(state, arch), source=source, arch=arch)
    return fingerprint(backbone.state_dict())


def fingerprint(state: dict[str, Tensor]) -> str:
    """SHA-256 over the names, shapes and bytes of the tensors, sorted by name, less the counters of batch norm."""
    digest = hashlib.sha256()
    for name in sorted(name for name in state if not _is_counter(name)):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _is_counter(name: str) -> bool:
    """Statistics counters are absent from many converted files and are not used in eval mode."""
    return name.endswith("num_batches_tracked")


def _imagenet(arch: Architecture) -> dict[str, Tensor]:
    weights = get_model_weights(arch)["IMAGENET1K_V1"]
    try:
        # check_hash: a download that broke off must not be used as if it were whole. weights_only: what
        # lies in the cache already is not checked, and must not be run either.
        with _patience(_DOWNLOAD_SECONDS):
            return dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except Exception as error:  # network, disk and unpickler fail with classes that have no common root
        name = weights.url.rsplit("/", 1)[-1]
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"The ImageNet weights of {arch} could not be downloaded ({_reason(error)}). On a machine without "
            f"internet: fetch {weights.url} elsewhere, then either put {name} into {cache}, or pass the file with "
            f"--weights PATH/TO/{name}. `--weights none` trains from random weights (much less accurate)."
        ) from error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Let new connections give up; torch's downloads would wait for as long as the system does."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read(path: Path, arch: Architecture, preprocess: PreprocessConfig) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file {path}. Give a .pth or .safetensors state dict, a JigSight artifact, "
            f"'{IMAGENET}' or '{NONE}'."
        )
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = _from_artifact(path, arch, preprocess) if _is_artifact(path) else load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # a damaged file makes the unpickler fail with anything, from KeyError to struct.error
        raise WeightsError(
            f"{path} cannot be read as weights ({_reason(error)}). "
            "A state dict is expected, saved by torch.save(model.state_dict()) or by safetensors."
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(map(_is_entry, state.items())):
        raise WeightsError(f"{path} holds no state dict (names of tensors); save model.state_dict(), not the model.")
    return dict(state)


def _is_artifact(path: Path) -> bool:
    with safe_open(path, framework="pt") as file:
        return artifact.METADATA_KEY in (file.metadata() or {})


def _from_artifact(path: Path, arch: Architecture, preprocess: PreprocessConfig) -> dict[str, Tensor]:
    try:
        loaded = artifact.load(path)
    except ArtifactError as error:
        raise WeightsError(f"The weights in an artifact cannot be had: {error}") from error
    theirs = loaded.manifest.detector.arch
    if theirs != arch:
        raise WeightsError(f"The weights in {path} do not fit {arch}: it is an artifact of a {theirs}.")
    backbone, prefix = loaded.detector.backbone, weight_prefix(arch)
    assert isinstance(backbone, Backbone), "it was not made ready"
    renormalise(backbone, loaded.manifest.detector.preprocess, preprocess)
    return {prefix + name: tensor for name, tensor in backbone.state_dict().items()}


def _is_entry(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _reason(error: Exception) -> str:
    """What an error says, in a line. Torch's own words on a pickle advise to run whatever is in it."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or holds more than tensors; code in a file is never run"
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


def _kept(state: dict[str, Tensor], arch: Architecture) -> dict[str, Tensor]:
    """The tensors of the layers that the backbone has, under its own names."""
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    prefix, past = weight_prefix(arch), layers_past_the_cut(arch)
    # Layers past the third level belong to the same network: leave them out, but keep any stranger
    # so that it is reported.
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.removeprefix(prefix).split(".", 1)[0] not in past
    }


def _fit(backbone: Backbone, state: dict[str, Tensor], *, source: str, arch: Architecture) -> None:
    wanted = backbone.state_dict()
    missing = sorted(name for name in wanted.keys() - state.keys() if not _is_counter(name))
    left_over = sorted(state.keys() - wanted.keys())
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    complaints = [
        f"{what}: {', '.join(names[:_SHOWN])}{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''}"
        for what, names in (("missing", missing), ("left over", left_over), ("of another shape", reshaped))
        if names
    ]
    if complaints:
        raise WeightsError(f"The weights in {source} do not fit {arch}. " + "; ".join(complaints) + ".")
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor.float()).all()]
    if broken:
        raise WeightsError(f"The weights in {source} hold values that are not finite, first in {broken[0]}.")
    # copy_ also turns half precision into the backbone's own.
    backbone.load_state_dict(state, strict=False)
