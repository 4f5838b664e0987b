"""JigSight: fitted by the training pipeline, loaded from its artifact, asked as the service asks it.

The recipe is `default` with its Gaussian scorer and nothing to choose: no alignment, no jigsaw, no fusion, and one
setting of each kind. From a picture file to the verdict's score, regions and map.
"""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loop import Answer, LastCase, Rounds, Run, file_bytes, peak_bytes, serve, turn
from numpy.typing import NDArray
from safetensors.torch import save_file
from stopwatch import stopwatch
from torch import Tensor

from models.allocator import keep_memory
from models.artifact import Artifact, load
from models.backbone import Architecture, build_backbone, weight_prefix
from models.images import decode
from models.preprocess import Preprocess, PreprocessConfig
from models.taken import Taken, take
from service.runs import Reading, detect
from training.batch_norm import estimate_batch_norm
from training.loop import Devices
from training.materials import gather
from training.pipeline import train_category
from training.progress import Progress
from training.recipe import Recipe, read_recipe
from training.request import TrainingRequest
from training.synthetic import make_tiles
from training.working_folder import SCRATCH
from training.workshop import Workshop

Rgb = NDArray[np.uint8]


def recipe(image_size: int) -> Recipe:
    """`default` with nothing left to choose."""
    overrides: dict[str, dict[str, Any]] = {stage: {"use": "never"} for stage in ("alignment", "jigsaw", "fusion")}
    overrides["scorer"] = {"rank": [32], "shrinkage": [0.03], "pooling": [3]}
    overrides["map"] = {"smoothing": [4.0]}
    overrides["preprocess"] = {"image_size": image_size}
    return read_recipe("default", overrides=overrides)


def decoded(path: str) -> Rgb:
    """One picture file, whole -> (h, w, 3) uint8 RGB."""
    return decode(Path(path).read_bytes())


class Ours:
    """A loaded artifact, and the case that it was asked last."""

    def weights(self, *, arch: Architecture, folder: str, image_size: int, target: str, seed: int = 0) -> Answer:
        """Write random weights for all contestants, as torchvision names them, with statistics of those pictures."""
        torch.manual_seed(seed)
        backbone, config = build_backbone(arch), PreprocessConfig(image_size=image_size)
        some = sorted(Path(folder).iterdir())[:8]
        tiles = torch.stack([Preprocess(config).resize(decoded(str(path))) for path in some])
        estimate_batch_norm(backbone, [tiles], config)
        state = {weight_prefix(arch) + name: tensor for name, tensor in backbone.state_dict().items()}
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, target + ".safetensors")
        torch.save(state, target + ".pth")
        return {}

    def fit(
        self,
        *,
        arch: Architecture,
        weights: str,
        folder: str,
        output: str,
        image_size: int,
        device: str,
        threads: int,
        calibrated: bool = True,
        **_: Any,
    ) -> Answer:
        """A whole training run on the pictures of a folder, or the detector alone."""
        request = TrainingRequest(
            data=Path(folder),
            category=None,
            recipe=recipe(image_size),
            arch=arch,
            weights=weights,
            textures=None,
            kind="texture",
            devices=Devices(accelerator=device),
            artifacts=Path(output),
        )
        keep_memory()  # as `jigsight train` does
        torch.set_num_threads(threads)
        begun, progress = time.perf_counter(), Progress.silent()
        if not calibrated:
            _fit_alone(request, progress)
            return {"seconds": time.perf_counter() - begun, "steps": progress.seconds, "peak_bytes": peak_bytes()}
        result = train_category(request, progress)
        return {
            "seconds": time.perf_counter() - begun,
            "steps": result.seconds,
            "peak_bytes": peak_bytes(),
            "artifacts": {"jigsight": str(result.artifact)},
            "artifact_bytes": {"jigsight": file_bytes(result.artifact)},
        }

    def load(self, *, artifact: str, device: str, threads: int, pictures: dict[str, list[str]], **_: Any) -> Answer:
        """Seconds from the file to a detector that is ready, and to its first answer."""
        keep_memory()  # as `jigsight serve` does
        torch.set_num_threads(threads)
        # The service decodes in threads as well.
        self.pool, self.pictures = ThreadPoolExecutor(threads), pictures
        begun = time.perf_counter()
        self.artifact: Artifact = load(Path(artifact)).ready(device)
        ready = time.perf_counter()
        self._judged([self._taken(pictures["jpeg"][0])])
        self._case = LastCase(self._prepared)
        return {"seconds": ready - begun, "first_seconds": time.perf_counter() - begun}

    def time(self, *, source: str, batch: int, passes: int, enough_ms: float) -> Answer:
        """Milliseconds of some passes, and what the last one came to."""
        run, watch = self._case.run(source, batch), stopwatch(self.artifact.device)
        spent = turn(run, passes=passes, enough_ms=enough_ms, stopwatch=watch)
        reading = self._last[-1]
        if not math.isfinite(reading.score):
            raise ValueError(f"the score is {reading.score}")
        return {"milliseconds": spent, "map": reading.map.shape}

    def _prepared(self, source: str, batch: int) -> Run:
        if source in ("jpeg", "png"):
            files = Rounds(self.pictures[source], batch)
            return lambda: self._judged(self._each(self._taken, files.next()))
        arrays = [decoded(path) for path in self.pictures["png"]]
        if source == "small":
            arrays = [np.ascontiguousarray(self._tile(array).permute(1, 2, 0).numpy()) for array in arrays]
            # There is nothing to resize: threads would cost more than they do.
            small = Rounds(arrays, batch)
            return lambda: self._judged([self._resized(array) for array in small.next()])
        rounds = Rounds(arrays, batch)
        return lambda: self._judged(self._each(self._resized, rounds.next()))

    def _judged(self, pictures: Sequence[Taken]) -> None:
        """Tiles -> verdicts, the whole batch in one pass."""
        self._last: list[Reading] = detect(self.artifact, [taken.tile for taken in pictures])
        for reading, taken in zip(self._last, pictures, strict=True):
            self.artifact.judge(reading.score, reading.map, size=taken.size)

    def _taken(self, path: str) -> Taken:
        """One picture file, as the service takes it."""
        return take(Path(path).read_bytes(), self.artifact.detector.preprocess)

    def _resized(self, picture: Rgb) -> Taken:
        return Taken(self._tile(picture), (picture.shape[0], picture.shape[1]))

    def _tile(self, picture: Rgb) -> Tensor:
        return self.artifact.detector.preprocess.resize(picture)

    def _each(self, work: Callable[[Any], Any], given: Sequence[Any]) -> list[Any]:
        return [work(given[0])] if len(given) == 1 else list(self.pool.map(work, given))


def _fit_alone(request: TrainingRequest, progress: Progress) -> None:
    """What the peers' fits come to: pictures that are left out by turns, for a threshold, are what costs most."""
    workshop = Workshop(
        recipe=request.recipe,
        arch=request.arch,
        pretrained=True,
        devices=request.devices,
        folder=request.artifacts / SCRATCH,
        progress=progress,
    )
    materials = gather(request, workshop)
    tiles = make_tiles(materials.images, "texture", folder=workshop.folder)
    smoothing = request.recipe.map.smoothing[0]
    config = workshop.config(align=None, fused=False, scorer=workshop.fitter.first(len(tiles)), smoothing=smoothing)
    workshop.fit(workshop.assemble(config, materials.backbone, None), tiles, folds=None)


if __name__ == "__main__":
    ours = Ours()
    serve({"weights": ours.weights, "fit": ours.fit, "load": ours.load, "time": ours.time})
