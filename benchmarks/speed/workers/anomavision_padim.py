"""AnomaVision's PaDiM, in its own environment: fitted and saved as `anomavision train` does, asked as `detect` does.

Its dataset class resizes and normalises, its ModelWrapper loads and scores, its blur smooths the map, as in its
`detect`. It has no reader for a single file but Pillow and that dataset's transform, so a batch of files is a loop of
those, and one pass of the model.
"""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loop import Answer, LastCase, Rounds, Run, file_bytes, peak_bytes, serve, turn
from PIL import Image
from pixels import pixels

_NAMES = {"resnet18": "resnet18", "wide_resnet50_2": "wide_resnet50"}
_BATCH = 32


def fit(
    *,
    arch: str,
    weights: str,
    folder: str,
    output: str,
    image_size: int,
    device: str,
    threads: int,
    layers: list[int],
    dimensions: int,
    **_: Any,
) -> Answer:
    """Seconds and peak memory of the fit, on `layers` and so many of their channels."""
    import anomavision
    from anomavision.algorithm.common import feature_extraction
    from torch.utils.data import DataLoader

    torch.set_num_threads(threads)
    name = _NAMES[arch]
    build = feature_extraction.BACKBONES[name][0]
    feature_extraction.BACKBONES[name] = (build, None)  # it would download weights
    model = anomavision.Padim(backbone=name, device=device, layer_indices=layers, feat_dim=dimensions)
    state = torch.load(weights, weights_only=True)
    lacking = model.embeddings_extractor.backbone.load_state_dict(state, strict=False)
    missing = [key for key in lacking.missing_keys if not key.startswith(("layer4", "fc"))]
    if missing:
        raise ValueError(f"weights lack {missing[:3]}")
    size = (image_size, image_size)
    dataset = anomavision.AnodetDataset(folder, resize=size, crop_size=None, normalize=True)
    begun = time.perf_counter()
    model.fit(DataLoader(dataset, batch_size=_BATCH, shuffle=False))
    seconds, peak = time.perf_counter() - begun, peak_bytes()
    Path(output).mkdir(parents=True, exist_ok=True)
    path = Path(output) / "model.pt"
    torch.save(model, path)
    return {
        "seconds": seconds,
        "peak_bytes": peak,
        "images": len(dataset),
        "artifacts": {"torch": str(path)},
        "artifact_bytes": {"torch": file_bytes(path)},
    }


class Asked:
    """A loaded model, and the case that it was asked last."""

    def load(
        self, *, artifact: str, device: str, threads: int, image_size: int, pictures: dict[str, list[str]], **_: Any
    ) -> Answer:
        """Seconds from the file to a model that is ready, and to its first answer."""
        from anomavision.inference.model.wrapper import ModelWrapper
        from anomavision.utils import adaptive_gaussian_blur, create_image_transform

        torch.set_num_threads(threads)
        self.pictures, self.size, self.device, self.blur = pictures, image_size, device, adaptive_gaussian_blur
        self.transform = create_image_transform(resize=(image_size, image_size), crop_size=None, normalize=True)
        first = pixels(pictures["jpeg"][0])
        begun = time.perf_counter()
        self.model = ModelWrapper(artifact, device)
        ready = time.perf_counter()
        self._predict([Image.fromarray(first)])
        self._case = LastCase(self._prepared)
        return {"seconds": ready - begun, "first_seconds": time.perf_counter() - begun}

    def time(self, *, source: str, batch: int, passes: int, enough_ms: float) -> Answer:
        """Milliseconds of some passes, and what the last one came to."""
        spent = turn(self._case.run(source, batch), passes=passes, enough_ms=enough_ms)
        if not math.isfinite(self._score):
            raise ValueError(f"the score is {self._score}")
        note = "a loop over the files, one pass of the model" if source in ("jpeg", "png") and batch > 1 else ""
        return {"milliseconds": spent, "map": list(self._map), "note": note}

    def _prepared(self, source: str, batch: int) -> Run:
        if source in ("jpeg", "png"):
            files = Rounds(self.pictures[source], batch)
            return lambda: self._predict([Image.open(path).convert("RGB") for path in files.next()])
        edge = self.size if source == "small" else None
        rounds = Rounds([pixels(path, edge) for path in self.pictures["png"]], batch)
        return lambda: self._predict([Image.fromarray(array) for array in rounds.next()])

    def _predict(self, pictures: list[Image.Image]) -> None:
        batch = torch.stack([self.transform(picture) for picture in pictures])
        scores, maps = self.model.predict(batch)
        maps = self.blur(maps, kernel_size=33, sigma=4)
        self._score, self._map = float(np.asarray(scores).reshape(-1)[-1]), maps.shape[-2:]


if __name__ == "__main__":
    asked = Asked()
    serve({"fit": fit, "load": asked.load, "time": asked.time})
