"""What a cell's figures depend on, as a key: recipe, weights, pictures, textures, rate, device and packages.

Our own code within one version is not part of it: after a change to that, measure into another folder.
"""

from pathlib import Path
from typing import Any

import torch

from models.backbone import build_backbone
from models.device import pick_device
from models.errors import JigSightError
from models.weights import load_weights
from training.benchmark.cells import key_of
from training.benchmark.method import Method, method_recipe, resolved
from training.benchmark.peer_environment import REQUIREMENT
from training.benchmark.request import BenchmarkRequest
from training.datasets import test_samples, training_images
from training.picture_files import fingerprint
from training.textures import FolderTextures
from training.working_folder import packages


class CellKeys:
    """The keys of a request's cells. Making it loads the weights and reads all recipes: what is wrong shows first."""

    def __init__(self, request: BenchmarkRequest) -> None:
        self._request = request
        self._common = _common_inputs(request)
        self._methods = {method.name: _method_inputs(request, method) for method in request.methods}

    def of(self, category: str) -> dict[str, str]:
        """Method -> key; reads every picture of the category, once."""
        pictures = _data_inputs(self._request.data, category)
        return {name: key_of({**self._common, **pictures, **inputs}) for name, inputs in self._methods.items()}


def _common_inputs(request: BenchmarkRequest) -> dict[str, Any]:
    """What all cells depend on. Loading the weights here downloads them once for all cells."""
    torch.manual_seed(0)
    weights = load_weights(build_backbone(request.arch), request.arch, request.weights)
    return {
        "arch": request.arch,
        "weights": weights,
        "textures": None if request.textures is None else fingerprint(FolderTextures(request.textures).paths),
        "rate": request.false_reject_rate,
        "device": pick_device(request.device).type,
        "packages": packages(),
    }


def _data_inputs(data: Path, category: str) -> dict[str, Any]:
    """What is in the category's folders; a folder that cannot be used is the cells' failure, not the run's."""
    try:
        samples, train = test_samples(data, category), training_images(data, category)
    except JigSightError as error:
        return {"unusable": str(error)}
    groups: dict[str, list[Path]] = {"train": train}
    for sample in samples:
        groups.setdefault(f"test/{sample.defect}", []).append(sample.path)
        if sample.mask is not None:
            groups.setdefault(f"mask/{sample.defect}", []).append(sample.mask)
    return {name: fingerprint(paths) for name, paths in groups.items()}


def _method_inputs(request: BenchmarkRequest, method: Method) -> dict[str, Any]:
    if method.peer is not None:
        return {"peer": method.peer.model, "settings": resolved(method.peer.settings, request.arch), "by": REQUIREMENT}
    recipe = method_recipe(method, request.arch, false_reject_rate=request.false_reject_rate)
    return {"recipe": recipe.model_dump(mode="json")}
