"""A production line in miniature, for the benchmarks of the service: pictures of parts, and artifacts that judge them.

The pictures are JPEGs of linen as `jigsight sample` draws it, about 4 % of a byte a pixel each (230 kB at 1024×1024).
The artifacts have random weights and are fitted on those pictures alone: they judge as fast as real ones, and nothing
else is asked of them.
"""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from models.artifact import save
from models.backbone import Architecture
from models.detector import DetectorConfig, build_detector
from models.manifest import DatasetRecord, Manifest, ThresholdRecord, WeightsRecord
from models.precision import round_to_stored
from models.preprocess import PreprocessConfig
from models.taken import take
from models.whole_numbers import in_whole_numbers
from training.features import extract
from training.fit import Fitter
from training.progress import Progress
from training.recipe import GaussianSection
from training.samples import CATEGORIES

_SMALL = GaussianSection(rank=(12,), shrinkage=(0.03,), pooling=(3,), dimensions=0.5)  # as in the recipe `small`
QUALITY = 94
_FOLDS = 4
_MARGIN = 1.25  # of the threshold over the highest score of a part that a fold has not seen
_COMMENT = b"\xff\xfe\x00\x12"  # a JPEG's comment segment of 16 bytes, and its own length


def draw_parts(count: int, *, size: int) -> list[bytes]:
    """`count` different JPEGs of good parts, size×size pixels."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda seed: _draw(seed, size), range(count)))


def _draw(seed: int, size: int) -> bytes:
    rgb, _ = CATEGORIES["cloth"].render(np.random.default_rng(seed), size)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


class NeverTheSame(Sequence[bytes]):
    """Those pictures over and over, each time with another number in a comment.

    A line never sends the same bytes twice: a server that keeps pictures by their content has to write every one.
    """

    def __init__(self, pictures: Sequence[bytes], *, run: int = 0) -> None:
        self._pictures = pictures
        self._run = run

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, number: int) -> bytes:  # type: ignore[override]  # no slices
        picture = self._pictures[number % len(self._pictures)]
        return b"".join((picture[:2], _COMMENT, f"{self._run:05d}-{number:010d}".encode(), picture[2:]))

    def __iter__(self) -> Iterator[bytes]:
        return (self[number] for number in range(len(self)))


def make_artifact(
    folder: Path, *, category: str, arch: Architecture, pictures: Sequence[bytes], image_size: int = 224, seed: int = 0
) -> Path:
    """Fit a compact Gaussian to those pictures and save it under `folder`; they pass, by a margin."""
    torch.manual_seed(seed)
    preprocess = in_whole_numbers(PreprocessConfig(image_size=image_size, reduced_jpeg=True))
    fitter = Fitter(_SMALL, arch, preprocess.side, seed, torch.device("cpu"), Progress.silent())
    config = DetectorConfig(
        arch=arch, preprocess=preprocess, fusion="none", scorer=fitter.first(len(pictures)), smoothing=4.0
    )
    detector = build_detector(config).eval().requires_grad_(False)
    round_to_stored(detector)
    with torch.inference_mode(), TemporaryDirectory() as scratch:
        tiles = [take(picture, detector.preprocess).tile.unsqueeze(0) for picture in pictures]
        features, poses = extract(
            detector,
            tiles,
            count=len(tiles),
            folder=Path(scratch),
            device=fitter.device,
            progress=fitter.progress,
        )
        distances = fitter.fit(detector.scorer, features, folds=np.arange(len(tiles)) % _FOLDS)
        assert distances.out_of_sample is not None
        scores = detector.finish(distances.out_of_sample, poses).flatten(1).amax(1)
    manifest = Manifest(
        category=category,
        kind="texture",
        kind_reason="it was drawn so",
        detector=config,
        weights=WeightsRecord(source="none", sha256="0" * 64),
        threshold=ThresholdRecord(rule="train_max", value=_MARGIN * float(scores.max()), false_reject_rate=None),
        choices=(),
        validation={},
        dataset=DatasetRecord(images=len(pictures), fingerprint="1" * 64),
        textures="none",
        recipe={"name": "benchmarks/line.py"},
        packages={},
    )
    return save(detector, manifest, scores, folder=folder)
