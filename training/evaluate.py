"""An artifact against pictures whose truth is known: figures for the line, and for comparing methods.

Judges with `Artifact.judge` on `Artifact.detector`'s output, as the service does. At the artifact's threshold:
the share of good parts rejected, with its interval, and of defects missed. Without one: image AUROC, pixel AUROC
and AUPRO; the pixel figures in the frame that the network sees (that of one tile, for all of a picture's, so that
tilings compare), over good pictures and those defective ones that have a mask.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.artifact import Artifact
from models.errors import DatasetError, ScoreError
from models.preprocess import Preprocess, PreprocessConfig, locate
from models.taken import Taken
from models.verdict import Judgement
from training.ahead import read_ahead
from training.arrays import Mask
from training.confidence import share_interval
from training.datasets import GOOD, TestSample
from training.metrics import aupro, image_auroc, pixel_auroc
from training.picture_files import fingerprint, read_mask, read_taken


@dataclass(frozen=True)
class JudgedImage:
    """One picture, its truth (`defect`) and what the detector says.

    `margin`: see `models.verdict.margin`. `p_value`: see `Calibration.p_value`.
    """

    path: str
    defect: str
    score: float
    verdict: Literal["pass", "fail"]
    margin: float
    p_value: float


@dataclass(frozen=True)
class DefectFigures:
    """A defect type, or "good". `auroc` is against the good pictures; None for them, or without any."""

    images: int
    rejected: int
    missed: int
    auroc: float | None
    mean_score: float


@dataclass(frozen=True)
class Evidence:
    """What the figures were made from, for pictures of them: maps (n, h, w) float32 in the order of `samples`."""

    samples: tuple[TestSample, ...]
    maps: NDArray[np.float32]
    preprocess: PreprocessConfig
    pixel_threshold: float | None
    calibration_scores: NDArray[np.float32]


@dataclass(frozen=True)
class Evaluation:
    """All figures. None stands for what cannot be told: no masks, no good or no defective pictures.

    `false_reject_rate` and `miss_rate` are measured; `alpha` is the rate that the threshold was chosen for. By
    `false_reject_interval` the first is known, with 95 % confidence (see `training.confidence`).
    `seen_in_training`: the good pictures are those that the artifact was made from, which flatters it.
    """

    category: str
    version: str
    image_auroc: float | None
    pixel_auroc: float | None
    aupro: float | None
    threshold: float
    threshold_rule: str
    alpha: float | None
    false_reject_rate: float | None
    false_reject_interval: tuple[float, float] | None
    miss_rate: float | None
    seen_in_training: bool
    by_defect: dict[str, DefectFigures]
    images: tuple[JudgedImage, ...]
    evidence: Evidence

    def to_json(self) -> dict[str, Any]:
        """Everything but the evidence, as plain values."""
        document = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "evidence"}
        document["by_defect"] = {name: asdict(figures) for name, figures in self.by_defect.items()}
        document["images"] = [asdict(image) for image in self.images]
        return document


@dataclass(frozen=True)
class _Reading:
    judgement: Judgement
    map: NDArray[np.float32]
    truth: Mask | None  # (s, s), s the image_size; None where it is not known


def evaluate(
    artifact: Artifact,
    samples: Sequence[TestSample],
    *,
    false_reject_rate: float | None = None,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Judge every sample and count; `progress(done, total)` is called after each.

    `false_reject_rate` asks for the calibration's threshold for that rate instead of the artifact's own. Raises
    DatasetError for pictures and masks that cannot be used, ScoreError where there is no verdict.
    """
    if not samples:
        raise DatasetError("There are no test pictures to evaluate on.")
    threshold, rule, alpha = _threshold(artifact, false_reject_rate)
    readings = []
    for reading in _read(artifact, samples, threshold=threshold, batch_size=batch_size):
        readings.append(reading)
        if progress is not None:
            progress(len(readings), len(samples))
    images = tuple(_judged(sample, reading.judgement) for sample, reading in zip(samples, readings, strict=True))
    return Evaluation(
        category=artifact.manifest.category,
        version=artifact.version,
        threshold=threshold,
        threshold_rule=rule,
        alpha=alpha,
        **_image_figures(images),
        **_pixel_figures(readings, artifact.manifest.detector.preprocess),
        seen_in_training=_seen_in_training(artifact, samples),
        images=images,
        evidence=_evidence(artifact, samples, readings),
    )


def _evidence(artifact: Artifact, samples: Sequence[TestSample], readings: Sequence[_Reading]) -> Evidence:
    return Evidence(
        samples=tuple(samples),
        maps=np.stack([reading.map for reading in readings]),
        preprocess=artifact.manifest.detector.preprocess,
        pixel_threshold=artifact.manifest.threshold.pixel,
        calibration_scores=artifact.calibration.scores.numpy(),
    )


def _threshold(artifact: Artifact, false_reject_rate: float | None) -> tuple[float, str, float | None]:
    if false_reject_rate is not None:
        calibration = artifact.calibration
        promised = max(false_reject_rate, calibration.attainable_alpha)  # what holds, not what was wished
        return calibration.threshold(promised), "conformal", promised
    own = artifact.manifest.threshold
    return own.value, own.rule, own.false_reject_rate


def _read(
    artifact: Artifact, samples: Sequence[TestSample], *, threshold: float, batch_size: int
) -> Iterator[_Reading]:
    preprocess = artifact.detector.preprocess
    config = preprocess.config
    frame = Preprocess(config.model_copy(update={"tiles": 1, "align": None}))
    batch_size = max(1, batch_size // config.tiles**2)  # the network sees as many squares at once as ever

    def prepare(sample: TestSample) -> tuple[Taken, Mask | None]:
        taken = read_taken(sample.path, preprocess)
        if sample.mask is not None:
            return taken, frame.resize_mask(read_mask(sample.mask, size=taken.size)).numpy()
        return taken, np.zeros((config.image_size, config.image_size), np.bool_) if sample.is_good else None

    with closing(read_ahead(prepare, samples, batch=batch_size)) as prepared:
        for start in range(0, len(samples), batch_size):
            batch = samples[start : start + batch_size]
            pictures, truths = zip(*islice(prepared, len(batch)), strict=True)
            found = artifact.runner([taken.tile for taken in pictures])
            scores, maps = found.scores.tolist(), found.maps
            for sample, taken, truth, score, score_map in zip(batch, pictures, truths, scores, maps, strict=True):
                try:
                    judgement = artifact.judge(score, score_map, size=taken.size, threshold=threshold)
                except ScoreError as error:
                    raise ScoreError(f"{sample.path}: {error}") from error
                yield _Reading(judgement, score_map, truth)


def _seen_in_training(artifact: Artifact, samples: Sequence[TestSample]) -> bool:
    """Whether the good pictures are exactly those of the training; some of them among others go unnoticed."""
    good = [sample.path for sample in samples if sample.is_good]
    made_from = artifact.manifest.dataset  # whose number of pictures is without copies
    return len(good) >= made_from.images and fingerprint(good) == made_from.fingerprint


def _judged(sample: TestSample, judgement: Judgement) -> JudgedImage:
    return JudgedImage(
        path=str(sample.path),
        defect=sample.defect,
        score=judgement.score,
        verdict=judgement.verdict,
        margin=judgement.margin,
        p_value=judgement.p_value,
    )


def _image_figures(images: Sequence[JudgedImage]) -> dict[str, Any]:
    scores = np.array([image.score for image in images])
    rejected = np.array([image.verdict == "fail" for image in images])
    defects = np.array([image.defect for image in images])
    good = defects == GOOD
    by_defect = {}
    for name in dict.fromkeys(defects.tolist()):
        mine = defects == name
        by_defect[name] = DefectFigures(
            images=int(mine.sum()),
            rejected=int(rejected[mine].sum()),
            missed=0 if name == GOOD else int((~rejected[mine]).sum()),
            auroc=None if name == GOOD else image_auroc(scores[mine | good], mine[mine | good]),
            mean_score=float(scores[mine].mean()),
        )
    return {
        "image_auroc": image_auroc(scores, ~good),
        "false_reject_rate": float(rejected[good].mean()) if good.any() else None,
        "false_reject_interval": share_interval(int(rejected[good].sum()), int(good.sum())) if good.any() else None,
        "miss_rate": float((~rejected[~good]).mean()) if not good.all() else None,
        "by_defect": by_defect,
    }


def _pixel_figures(readings: Sequence[_Reading], preprocess: PreprocessConfig) -> dict[str, Any]:
    known = [(reading.map, reading.truth) for reading in readings if reading.truth is not None]
    if not any(truth.any() for _, truth in known):
        return {"pixel_auroc": None, "aupro": None}
    masks = np.stack([truth for _, truth in known])
    # The frame is a picture that is seen whole, whatever was cropped to make it.
    frame = preprocess.model_copy(update={"resize": None, "tiles": 1})
    size = (masks.shape[1], masks.shape[2])
    maps = np.stack([locate(score_map, frame, size) for score_map, _ in known])
    return {"pixel_auroc": pixel_auroc(maps, masks), "aupro": aupro(maps, masks)}
