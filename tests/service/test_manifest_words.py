"""The manifest in words: every kind of artifact can be told, with the figures behind each choice."""

import pytest

from models.alignment import AlignmentConfig
from models.artifact import Artifact
from models.coupled import CoupledConfig
from models.gaussian import DenseGaussianConfig
from models.manifest import Choice, Manifest, ThresholdRecord, WeightsRecord
from models.memory_bank import MemoryBankConfig
from models.preprocess import PreprocessConfig
from service.manifest_words import sentences


@pytest.fixture
def manifest(artifact: Artifact) -> Manifest:
    return artifact.manifest


def words(manifest: Manifest, **changes: object) -> str:
    return "\n".join(sentences(manifest.model_copy(update=changes)))


def test_what_the_tests_artifact_is(manifest: Manifest) -> None:
    found = sentences(manifest)
    assert found[0] == "Category plate was trained on 24 pictures of good parts."
    assert "The network is a resnet18 with random weights: it was never trained on pictures." in found
    assert any("4 directions of its own in 32 dimensions, shrunk by 0.1" in sentence for sentence in found)
    assert f"above a score of {manifest.threshold.value:.4g}, the highest of the pictures" in found[-1]
    assert all(sentence.endswith(".") for sentence in found)


def test_a_threshold_by_rate(manifest: Manifest) -> None:
    record = ThresholdRecord(rule="conformal", value=3.14159, false_reject_rate=0.04)
    told = words(manifest, threshold=record)
    assert "above a score of 3.142, which about 4.00% of good parts exceed, by the scores of 24" in told


def test_choices_come_with_their_figures(manifest: Manifest) -> None:
    choices = (
        Choice(stage="alignment", kept=True, reason="rotate: of 2 the best", figures={"none": 0.93, "rotate": 0.96}),
        Choice(stage="jigsaw", kept=True, reason="it raises the mean AUROC"),
        Choice(stage="fusion", kept=False, reason="it does not", figures={"pixel_auroc_with": None}),
        Choice(stage="settings", kept=True, reason="rank 4: of 2 the best"),
    )
    told = words(manifest, choices=choices, validation={"image_auroc": 0.98765}).split("\n")
    assert "Alignment used: rotate: of 2 the best (none 0.93; rotate 0.96)." in told
    assert "Jigsaw fine-tuning used: it raises the mean AUROC." in told
    assert "MFCSAM fusion not used: it does not (pixel auroc with not measurable)." in told
    assert "Settings: rank 4: of 2 the best." in told
    assert "On synthetic defects in good pictures that were held out: image auroc 0.9877." in told
    assert any(sentence.endswith("fine-tuned by jigsaw.") for sentence in told)


def test_where_the_weights_came_from_and_what_is_special(manifest: Manifest) -> None:
    told = words(
        manifest,
        weights=WeightsRecord(source="ours.pth", sha256="0" * 64),
        ignored="2" * 64,
        refitted_from="0123456789ab",
        kind="object",
    )
    assert "with the weights in ours.pth" in told
    assert "Painted places of the picture are ignored" in told
    assert "version 0123456789ab" in told
    assert "It is an object: the pictures have no background." in told
    assert "ImageNet" in words(manifest, weights=WeightsRecord(source="imagenet", sha256="0" * 64))


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        (DenseGaussianConfig(channels=16), "over 16 channels"),
        (MemoryBankConfig(vectors=30), "Patches of levels 2 and 3 are compared with 30 good ones"),
        (CoupledConfig(dimensions=6, vectors=20), "compared with 20 centroids"),
    ],
)
def test_every_scorer(manifest: Manifest, scorer: object, said: str) -> None:
    detector = manifest.detector.model_copy(update={"scorer": scorer})
    assert said in words(manifest, detector=detector)


@pytest.mark.parametrize(
    ("preprocess", "said"),
    [
        (PreprocessConfig(image_size=64), "resized to 64×64 pixels, and parts are compared as they lie"),
        (PreprocessConfig(image_size=64, resize=81), "resized to 81×81 pixels, of which the middle 64×64 is seen"),
        (PreprocessConfig(image_size=64, tiles=3), "resized to 192×192 pixels and seen as 3×3 squares"),
        (
            PreprocessConfig(image_size=64, align=AlignmentConfig(name="rotate", across=1.5)),
            "moved to the middle and turned level, enlarged 1× along and 1.5× across",
        ),
    ],
)
def test_what_is_seen(manifest: Manifest, preprocess: PreprocessConfig, said: str) -> None:
    detector = manifest.detector.model_copy(update={"preprocess": preprocess, "smoothing": 0.0, "fusion": "mfcsam"})
    told = words(manifest, detector=detector)
    assert said in told
    assert "not smoothed" in told
    assert "fused by MFCSAM" in told
