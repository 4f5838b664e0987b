"""A manifest in words: what an artifact was made from, what it consists of, and why. From the manifest alone."""

from collections.abc import Iterator
from typing import assert_never

from models.compact_gaussian import CompactGaussianConfig
from models.coupled import CoupledConfig
from models.detector import ScorerConfig
from models.gaussian import DenseGaussianConfig
from models.manifest import Choice, Manifest
from models.memory_bank import MemoryBankConfig
from models.preprocess import PreprocessConfig

_FUSIONS = {
    "none": "Its levels are used as they are.",
    "mfcsam": "Its levels are fused by MFCSAM.",
    "mfcsam_residual": "Its third level is fused by MFCSAM, added to what it was.",
}
_STAGES = {"alignment": "Alignment", "jigsaw": "Jigsaw fine-tuning", "fusion": "MFCSAM fusion", "settings": "Settings"}
_SOURCES = {"imagenet": "torchvision's ImageNet weights", "none": "random weights: it was never trained on pictures"}


def sentences(manifest: Manifest) -> list[str]:
    """The manifest as a list of sentences."""
    return [
        f"Category {manifest.category} was trained on {manifest.dataset.images} pictures of good parts.",
        f"It is {'an object' if manifest.kind == 'object' else 'a texture'}: {manifest.kind_reason}.",
        _seen(manifest.detector.preprocess),
        _network(manifest),
        _FUSIONS[manifest.detector.fusion],
        _scorer(manifest.detector.scorer),
        _smoothing(manifest.detector.smoothing),
        *(_choice(choice) for choice in manifest.choices),
        *_validation(manifest),
        _threshold(manifest),
        *_rest(manifest),
    ]


def _seen(preprocess: PreprocessConfig) -> str:
    size, tiles = preprocess.image_size, preprocess.tiles
    if preprocess.resize is not None:
        how = f"resized to {preprocess.resize}×{preprocess.resize} pixels, of which the middle {size}×{size} is seen"
    elif tiles > 1:
        how = f"resized to {preprocess.side}×{preprocess.side} pixels and seen as {tiles}×{tiles} squares"
    else:
        how = f"resized to {size}×{size} pixels"
    align = preprocess.align
    if align is None:
        return f"Pictures are {how}, and parts are compared as they lie."
    turned = "moved to the middle" + (" and turned level" if align.name == "rotate" else "")
    return f"Pictures are {how}; parts are {turned}, enlarged {align.along:g}× along and {align.across:g}× across."


def _network(manifest: Manifest) -> str:
    source = _SOURCES.get(manifest.weights.source, f"the weights in {manifest.weights.source}")
    tuned = any(choice.stage == "jigsaw" and choice.kept for choice in manifest.choices)
    return f"The network is a {manifest.detector.arch} with {source}{', fine-tuned by jigsaw' if tuned else ''}."


def _scorer(scorer: ScorerConfig) -> str:
    match scorer:
        case CompactGaussianConfig():
            return (
                f"Each position has a Gaussian of good parts with {scorer.rank} directions of its own in "
                f"{scorer.dimensions} dimensions, shrunk by {scorer.shrinkage:g} towards the average of all."
            )
        case DenseGaussianConfig():
            return f"Each position has a Gaussian of good parts over {scorer.channels} channels (PaDiM)."
        case MemoryBankConfig():
            levels = " and ".join(map(str, scorer.levels))
            return f"Patches of levels {levels} are compared with {scorer.vectors} good ones (PatchCore)."
        case CoupledConfig():
            return f"Described patches are compared with {scorer.vectors} centroids of good ones (CFA)."
        case _:
            assert_never(scorer)


def _smoothing(sigma: float) -> str:
    return (
        f"The map of distances is smoothed over {sigma:g} pixels." if sigma else "The map of distances is not smoothed."
    )


def _choice(choice: Choice) -> str:
    figures = "; ".join(f"{name.replace('_', ' ')} {_figure(value)}" for name, value in choice.figures.items())
    kept = "" if choice.stage == "settings" else " used" if choice.kept else " not used"
    return f"{_STAGES[choice.stage]}{kept}: {choice.reason}{f' ({figures})' if figures else ''}."


def _validation(manifest: Manifest) -> Iterator[str]:
    if manifest.validation:
        figures = ", ".join(f"{name.replace('_', ' ')} {_figure(value)}" for name, value in manifest.validation.items())
        yield f"On synthetic defects in good pictures that were held out: {figures}."


def _threshold(manifest: Manifest) -> str:
    threshold = manifest.threshold
    fails = f"A part fails above a score of {threshold.value:.4g}"
    if threshold.false_reject_rate is None:
        return f"{fails}, the highest of the pictures that it was trained on; that says nothing of false rejects."
    return (
        f"{fails}, which about {threshold.false_reject_rate:.2%} of good parts exceed, by the scores of "
        f"{manifest.dataset.images} good pictures under detectors that had not seen them."
    )


def _rest(manifest: Manifest) -> Iterator[str]:
    if manifest.ignored is not None:
        yield "Painted places of the picture are ignored: no defect is found there."
    if manifest.refitted_from is not None:
        yield f"Network and settings are those of version {manifest.refitted_from}; its scorer was fitted anew."


def _figure(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.4g}"
