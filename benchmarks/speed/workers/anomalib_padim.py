"""anomalib's PaDiM, in its own environment: fitted by its Engine, exported by it, asked through its inferencers.

Its own defaults but for the picture's size, the weights of all contestants, and as many processes that read pictures
for its fit as there are threads (its default is 8 on any machine); peak memory is that of the process that fits.
`inferencer` is "torch" or "openvino". Neither opens more than one file at a time, so a batch of files is a loop; both
take a batch of decoded pictures.
"""

import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loop import Answer, LastCase, Rounds, Run, file_bytes, peak_bytes, serve, turn
from pixels import pixels

_LAYERS = ["layer1", "layer2", "layer3"]
_BATCH = 32  # anomalib's default


def fit(
    *, arch: str, weights: str, folder: str, output: str, image_size: int, device: str, threads: int, **_: Any
) -> Answer:
    """Seconds and peak memory of the fit alone; then both exports."""
    torch.set_num_threads(threads)
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models import Padim

    size = (image_size, image_size)
    processor = Padim.configure_pre_processor(size)
    model = Padim(
        backbone=arch, layers=_LAYERS, pre_trained=False, pre_processor=processor, evaluator=False, visualizer=False
    )
    state = torch.load(weights, weights_only=True)
    lacking = model.model.feature_extractor.feature_extractor.load_state_dict(state, strict=False)
    if lacking.missing_keys:
        raise ValueError(f"weights lack {lacking.missing_keys[:3]}")
    data = Folder(
        name="parts",
        root=str(Path(folder).parent),
        normal_dir=Path(folder).name,
        train_batch_size=_BATCH,
        num_workers=threads,
        normal_split_ratio=0.0,
        test_split_mode="none",
        val_split_mode="none",
    )
    engine = Engine(
        default_root_dir=output,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        logger=False,
        limit_val_batches=0,  # there is nothing to validate with
    )
    begun = time.perf_counter()
    engine.fit(model, datamodule=data)
    seconds, peak = time.perf_counter() - begun, peak_bytes()
    exported = _export(model.cpu(), output)
    notes = [f"pictures are read by {threads} processes beside it, whose memory is not counted", *exported.pop("notes")]
    return {
        "seconds": seconds,
        "peak_bytes": peak,
        "images": len(data.train_data),
        "note": "; ".join(notes),
        **exported,
    }


def _export(model: Any, output: str) -> Answer:
    torch_file = model.to_torch(output)
    found = {"artifacts": {"torch": str(torch_file)}, "artifact_bytes": {"torch": file_bytes(torch_file)}, "notes": []}
    try:
        file = model.to_openvino(output)
    except Exception as error:
        return found | {"notes": [f"no export to OpenVINO: {type(error).__name__}: {str(error)[:200]}"]}
    found["artifacts"]["openvino"] = str(file)
    found["artifact_bytes"]["openvino"] = file_bytes(file, file.with_suffix(".bin"))
    return found


class Asked:
    """A loaded inferencer, and the case that it was asked last."""

    def load(
        self,
        *,
        artifact: str,
        inferencer: str,
        device: str,
        threads: int,
        image_size: int,
        pictures: dict[str, list[str]],
        **_: Any,
    ) -> Answer:
        """Seconds from the file to an inferencer that is ready, and to its first answer."""
        torch.set_num_threads(threads)
        self.pictures, self.size, self.takes_tensors = pictures, image_size, inferencer == "torch"
        first = pixels(pictures["jpeg"][0])
        from anomalib.deploy import OpenVINOInferencer, TorchInferencer

        begun = time.perf_counter()
        if self.takes_tensors:
            os.environ["TRUST_REMOTE_CODE"] = "1"  # it is our own pickle
            self.inferencer = TorchInferencer(artifact, device=device)
        else:
            config = {"INFERENCE_NUM_THREADS": threads}
            self.inferencer = OpenVINOInferencer(artifact, device="CPU", config=config)
        ready = time.perf_counter()
        self.inferencer.predict(first)
        self._case = LastCase(self._prepared)
        return {"seconds": ready - begun, "first_seconds": time.perf_counter() - begun}

    def time(self, *, source: str, batch: int, passes: int, enough_ms: float) -> Answer:
        """Milliseconds of some passes, and what the last one came to."""
        spent = turn(self._case.run(source, batch), passes=passes, enough_ms=enough_ms)
        score = float(np.asarray(self._last.pred_score).reshape(-1)[-1])
        if not math.isfinite(score):
            raise ValueError(f"the score is {score}")
        note = "a loop over the files" if source in ("jpeg", "png") and batch > 1 else ""
        return {"milliseconds": spent, "map": list(np.asarray(self._last.anomaly_map).shape[-2:]), "note": note}

    def _prepared(self, source: str, batch: int) -> Run:
        if source in ("jpeg", "png"):
            files = Rounds(self.pictures[source], batch)
            return lambda: [self._predict(path) for path in files.next()]
        edge = self.size if source == "small" else None
        rounds = Rounds([pixels(path, edge) for path in self.pictures["png"]], batch)
        return lambda: self._predict(self._stacked(rounds.next()))

    def _stacked(self, arrays: list[Any]) -> Any:
        """What `predict` takes for these pictures (h, w, 3) uint8: one as it is, several as the tensor it knows."""
        if len(arrays) == 1:
            return arrays[0]
        batch = np.stack(arrays)
        return torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255 if self.takes_tensors else batch

    def _predict(self, given: Any) -> None:
        self._last = self.inferencer.predict(given)
        if isinstance(self._last.pred_score, torch.Tensor):
            self._last.pred_score = self._last.pred_score.detach().cpu()  # waits for the device
            self._last.anomaly_map = self._last.anomaly_map.detach().cpu()


if __name__ == "__main__":
    asked = Asked()
    serve({"fit": fit, "load": asked.load, "time": asked.time})
