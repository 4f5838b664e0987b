"""The practical limit: the backbone alone, cut at the third level, channels last, on a tensor that is ready.

It reads no picture and scores nothing. `extract` is what a fit cannot do without: all pictures read and resized, in
threads ahead of the network as in our fit, brought through it once, in batches, and forgotten.
"""

import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from loop import Answer, Run, peak_bytes, serve, turn
from stopwatch import captured, stopwatch
from torch import Tensor

from models.allocator import keep_memory
from models.backbone import Architecture, Backbone, build_backbone
from models.preprocess import Preprocess, PreprocessConfig
from models.taken import take
from models.weights import load_weights
from training.ahead import read_ahead

_BATCH = 32  # of the extraction


class Bare:
    """A backbone in one precision, and the case that it was asked last."""

    def load(self, **given: Any) -> Answer:
        """Seconds until it is there, for inference: memory is kept as our service keeps it."""
        keep_memory()
        return self._ready(**given)

    def _ready(
        self, *, arch: Architecture, weights: str, dtype: str, device: str, threads: int, image_size: int, **_: Any
    ) -> Answer:
        torch.set_num_threads(threads)
        begun = time.perf_counter()
        self.device, self.dtype, self.size = torch.device(device), getattr(torch, dtype), image_size
        backbone = build_backbone(arch)
        load_weights(backbone, arch, weights)
        backbone = backbone.eval().requires_grad_(False).to(self.device, self.dtype)
        self.backbone: Backbone = backbone.to(memory_format=torch.channels_last)
        self._batch, self._run, self._note = 0, lambda: None, ""
        return {"seconds": time.perf_counter() - begun}

    def time(self, *, batch: int, passes: int, enough_ms: float, **_: Any) -> Answer:
        """Milliseconds of some passes; where the pictures come from is the same to it."""
        with torch.inference_mode():
            if batch != self._batch:
                self._run, self._note = self._case(batch)
                self._batch = batch
            spent = turn(self._run, passes=passes, enough_ms=enough_ms, stopwatch=stopwatch(self.device))
        return {"milliseconds": spent, "note": self._note}

    def _case(self, batch: int) -> tuple[Run, str]:
        images = torch.randn(batch, 3, self.size, self.size, device=self.device, dtype=self.dtype)
        images = images.contiguous(memory_format=torch.channels_last)
        return captured(lambda: self.backbone(images), self.device)

    def extract(self, *, folder: str, **given: Any) -> Answer:
        """Seconds of one pass over all pictures of a folder, how many of them the network took, and peak memory.

        The network's seconds are by the clock, while the next pictures are decoded on the same cores.
        """
        keep_memory()  # as `jigsight train` does
        self._ready(**given)
        preprocess = Preprocess(PreprocessConfig(image_size=self.size, reduced_jpeg=True))
        paths = sorted(Path(folder).iterdir())

        def tile(path: Path) -> Tensor:
            return take(path.read_bytes(), preprocess).tile

        begun, network = time.perf_counter(), 0.0
        tiles = read_ahead(tile, paths, batch=_BATCH)
        with torch.inference_mode():
            while some := list(islice(tiles, _BATCH)):
                images = preprocess(torch.stack(some)).to(self.device, self.dtype)
                network += stopwatch(self.device)(lambda images=images: self.backbone(images)) / 1000
        return {"seconds": time.perf_counter() - begun, "steps": {"network": network}, "peak_bytes": peak_bytes()}


if __name__ == "__main__":
    bare = Bare()
    serve({"load": bare.load, "time": bare.time, "fit": bare.extract})
