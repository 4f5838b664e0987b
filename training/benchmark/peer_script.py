"""One model of anomalib on our tiles: `python peer_script.py REQUEST.json`, in an environment of its own.

Runs where anomalib is installed and JigSight need not be, so it imports nothing of ours. It drives anomalib's torch
models directly (no Lightning engine), over torchvision's network with the weights that it is given, and writes raw
scores and maps; what they are worth is computed by JigSight, by the same definitions as for its own methods.
"""

import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from anomalib.models.components import KCenterGreedy  # type: ignore[import-not-found]
from anomalib.models.image.padim.torch_model import PadimModel  # type: ignore[import-not-found]
from anomalib.models.image.patchcore import torch_model as patchcore  # type: ignore[import-not-found]
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

_BATCH = 32
_POOL = 4096  # points


class QuickGreedy(KCenterGreedy):
    """anomalib's greedy choice of a coreset: the same points in the same order, in a fraction of the time.

    Distances only shrink, so while a point of a pool of the farthest ones is farther than all outside were when the
    pool was made, it is the next; only then are the distances of all brought up to date, by one matrix product. And
    where anomalib's random projection P has more dimensions than the features, distances after it are those of
    `features @ L` with L L^T = P^T P.
    """

    def select_coreset_idxs(self) -> list[int]:
        """Indices of the coreset, the first one random, each next one the farthest from all before."""
        self.model.fit(self.embedding)
        points = self._reduced()
        chosen = [int(torch.randint(high=len(points), size=(1,), device=points.device))]
        nearest = _squared(points, points[chosen])[:, 0]  # (n,) squared distance to the nearest chosen point
        nearest[chosen] = 0
        while len(chosen) < self.coreset_size:
            fresh = self._next(points, nearest, wanted=self.coreset_size - len(chosen))
            for part in fresh.split(64):
                torch.minimum(nearest, _squared(points, points[part]).amin(1), out=nearest)
            nearest[fresh] = 0
            chosen += fresh.tolist()
        return chosen

    def _next(self, points: Tensor, nearest: Tensor, *, wanted: int) -> Tensor:
        """The next points, at least one, as far as a pool of the farthest can tell."""
        distances, pool = nearest.topk(min(_POOL, len(nearest)))
        outside = float(distances[-1]) if len(pool) < len(nearest) else -1.0
        mine = points[pool]
        norms = mine.pow(2).sum(1)
        fresh: list[int] = []
        while len(fresh) < wanted:
            farthest, best = (each.item() for each in distances.max(0))
            if fresh and farthest < outside:
                break
            fresh.append(int(best))
            squared = torch.addmv(norms + norms[fresh[-1]], mine, mine[fresh[-1]], alpha=-2)
            torch.minimum(distances, squared.clamp_min_(0), out=distances)
            distances[fresh[-1]] = 0
        return pool[fresh]

    def _reduced(self) -> Tensor:
        """(n, d) points with the distances that the projected features have."""
        features: Tensor = self.embedding
        projection: Tensor = self.model.sparse_random_matrix.to(features)  # (k, d)
        if projection.shape[0] > projection.shape[1]:
            values, vectors = torch.linalg.eigh((projection.T @ projection).double())
            points: Tensor = features @ (vectors * values.clamp_min(0).sqrt()).to(features)
        else:
            points = features @ projection.T
        return (points - points.mean(0)).contiguous()  # small norms lose little to cancellation


def _squared(points: Tensor, centres: Tensor) -> Tensor:
    """(n, d), (m, d) -> squared distances (n, m)."""
    norms, others = (each.pow(2).sum(1) for each in (points, centres))
    return torch.addmm(others, points, centres.T, alpha=-2).add_(norms.unsqueeze(1)).clamp_min_(0)


def build_network(request: dict[str, Any]) -> nn.Module:
    """A network of torchvision with the given weights; the layers past the last level are never run."""
    network: nn.Module = getattr(torchvision.models, request["network"])(weights=None)
    found = network.load_state_dict(load_file(request["weights"]), strict=False)
    kept = tuple(f"{layer}." for layer in request["layers"])
    lacking = [n for n in found.missing_keys if n.startswith(kept) and not n.endswith("num_batches_tracked")]
    if found.unexpected_keys or lacking:
        raise SystemExit(f"The weights do not fit {request['network']}: {found.unexpected_keys + lacking}")
    return network.eval()


def build_model(request: dict[str, Any]) -> nn.Module:
    """The untrained peer; its random choices (channels, projection, first point) depend on the seed alone."""
    torch.manual_seed(request["seed"])
    np.random.seed(request["seed"])  # anomalib's projection draws from numpy's global generator
    network, settings = build_network(request), request["settings"]
    levels = [request["levels"][index - 1] for index in settings["levels"]]
    if request["model"] == "padim":
        return PadimModel(backbone=network, layers=levels, n_features=settings["channels"])  # type: ignore[no-any-return]
    patchcore.KCenterGreedy = QuickGreedy
    return patchcore.PatchcoreModel(  # type: ignore[no-any-return]
        backbone=network, layers=levels, num_neighbors=settings["neighbours"]
    )


def fit(request: dict[str, Any], tiles: NDArray[np.uint8]) -> nn.Module:
    """A peer trained on good tiles (n, 3, s, s)."""
    device = torch.device(request["device"])
    model = build_model(request).to(device).train()
    for start in range(0, len(tiles), _BATCH):
        model(_normalise(request, tiles[start : start + _BATCH]).to(device))
    if isinstance(model, PadimModel):
        model.fit()
    else:
        model.subsample_embedding(request["settings"]["coreset"])  # type: ignore[operator]
    return model.eval()


@torch.inference_mode()
def predict(request: dict[str, Any], model: nn.Module, tiles: NDArray[np.uint8]) -> tuple[Any, Any]:
    """Scores (n,) and maps (n, s, s), float32."""
    scores, maps = [], []
    for start in range(0, len(tiles), _BATCH):
        found = model(_normalise(request, tiles[start : start + _BATCH]).to(request["device"]))
        scores.append(found.pred_score.reshape(-1).cpu())
        maps.append(found.anomaly_map[:, 0].cpu())
    return torch.cat(scores).float().numpy(), torch.cat(maps).float().numpy()


def milliseconds(request: dict[str, Any], model: nn.Module, tiles: NDArray[np.uint8]) -> float:
    """Median time of one tile alone, from uint8 to a score in ordinary memory."""
    spent = []
    for tile in tiles[: request["timed"]]:
        started = time.perf_counter()
        predict(request, model, tile[np.newaxis])
        spent.append(1000 * (time.perf_counter() - started))
    return statistics.median(spent)


def main(path: Path) -> None:
    """Train, predict, and write the .npz that the request names."""
    request = json.loads(path.read_text(encoding="utf-8"))
    train, test = np.load(request["train"]), np.load(request["test"])
    held = np.zeros(len(train), bool)
    held[request["held_out"]] = True
    # Scores of good tiles that a model has not seen, for a threshold; that model is then thrown away.
    held_scores = predict(request, fit(request, train[~held]), train[held])[0]
    started = time.perf_counter()
    model = fit(request, train)
    seconds = time.perf_counter() - started
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    scores, maps = predict(request, model, test)
    state = model.state_dict().values()
    np.savez(
        request["output"],
        scores=scores,
        maps=maps,
        held_scores=held_scores,
        seconds=seconds,
        milliseconds=milliseconds(request, model, test),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in state),
        peak_bytes=peak_bytes,
        device_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        threads=torch.get_num_threads(),
    )


def _normalise(request: dict[str, Any], tiles: NDArray[np.uint8]) -> Tensor:
    mean, std = (torch.tensor(request[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (torch.from_numpy(tiles).float() / 255 - mean) / std


if __name__ == "__main__":
    main(Path(sys.argv[1]))
