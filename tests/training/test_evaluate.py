import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from models.artifact import Artifact, load
from models.errors import DatasetError, ScoreError
from models.heatmaps import encode_png
from models.images import decode
from models.preprocess import Preprocess
from models.taken import take
from training.datasets import TestSample
from training.evaluate import Evaluation, evaluate
from training.evaluation_table import table
from training.metrics import aupro, image_auroc, pixel_auroc
from training.picture_files import fingerprint

SIZE = (96, 128)
Picture = Callable[[int], bytes]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, good: Picture, bad: Picture) -> list[TestSample]:
    """Six good parts, six with a square and its mask, and two good ones that are said to be dirty."""
    folder = tmp_path_factory.mktemp("plates")
    marked = np.zeros(SIZE, np.uint8)
    marked[SIZE[0] * 5 // 8 : SIZE[0] * 7 // 8, SIZE[1] * 5 // 8 : SIZE[1] * 7 // 8] = 255
    mask = folder / "mask.png"
    mask.write_bytes(encode_png(marked))
    found = []
    for seed in range(14):
        path = folder / f"{seed:02}.png"
        path.write_bytes(bad(seed) if 6 <= seed < 12 else good(seed))
        defect = "good" if seed < 6 else "square" if seed < 12 else "dirt"
        found.append(TestSample(path, defect, mask if defect == "square" else None))
    return found


@pytest.fixture(scope="module")
def evaluation(artifact: Artifact, samples: list[TestSample]) -> Evaluation:
    return evaluate(artifact, samples, batch_size=4)


def test_figures_are_those_of_the_verdicts(evaluation: Evaluation, artifact: Artifact) -> None:
    assert (evaluation.category, evaluation.version) == ("plate", artifact.version)
    assert evaluation.threshold == artifact.manifest.threshold.value
    assert (evaluation.threshold_rule, evaluation.alpha) == ("train_max", None)
    assert evaluation.false_reject_rate == 0.0
    assert evaluation.false_reject_interval == pytest.approx((0, 0.459), abs=1e-3)  # 0 of 6
    assert evaluation.miss_rate == 2 / 8  # what is called dirt cannot be told from good
    square, dirt, good = (evaluation.by_defect[name] for name in ("square", "dirt", "good"))
    assert list(evaluation.by_defect) == ["good", "square", "dirt"]
    assert (good.images, good.rejected, good.missed, good.auroc) == (6, 0, 0, None)
    assert (square.images, square.rejected, square.missed, square.auroc) == (6, 6, 0, 1.0)
    assert (dirt.images, dirt.rejected, dirt.missed) == (2, 0, 2)
    scores = np.array([image.score for image in evaluation.images])
    defective = np.array([image.defect != "good" for image in evaluation.images])
    assert evaluation.image_auroc == image_auroc(scores, defective)
    assert square.mean_score == pytest.approx(scores[6:12].mean())


def seeing(artifact: Artifact, **settings: int) -> Artifact:
    """The same, but with other settings of its preprocessing; what comes out of it must stay 64 pixels wide."""
    config = artifact.manifest.detector.preprocess.model_copy(update=settings)
    whole = artifact.manifest.detector.model_copy(update={"preprocess": config})
    detector = deepcopy(artifact.detector)
    detector.preprocess = Preprocess(config)
    return replace(artifact, detector=detector, manifest=artifact.manifest.model_copy(update={"detector": whole}))


@pytest.mark.parametrize(
    ("preprocess", "side", "square"),
    [
        ({}, 64, slice(40, 56)),  # 5/8 to 7/8
        ({"resize": 80}, 64, slice(42, 62)),  # of 80, less a margin of 8
        ({"image_size": 32, "tiles": 2}, 32, slice(20, 28)),
    ],
    ids=["whole", "crop", "tiles"],
)
def test_pixels_count_in_the_networks_frame_and_where_the_truth_is_known(
    artifact: Artifact, samples: list[TestSample], preprocess: dict[str, int], side: int, square: slice
) -> None:
    evaluation = evaluate(seeing(artifact, **preprocess), samples)
    # The dirt, at the end, has no masks: its pictures count neither as good nor as defective.
    maps = torch.from_numpy(evaluation.evidence.maps[:12]).unsqueeze(1)
    located = torch.nn.functional.interpolate(maps, (side, side), mode="bilinear").squeeze(1).numpy()
    masks = np.zeros(located.shape, bool)
    masks[6:12, square, square] = True
    assert evaluation.pixel_auroc == pytest.approx(pixel_auroc(located, masks), abs=1e-5)
    assert evaluation.aupro == pytest.approx(aupro(located, masks), abs=1e-4)


def test_each_picture_is_judged_as_the_service_judges_it(
    evaluation: Evaluation, artifact: Artifact, samples: list[TestSample]
) -> None:
    for sample, image, score_map in zip(samples, evaluation.images, evaluation.evidence.maps, strict=True):
        rgb = decode(sample.path.read_bytes())
        with torch.inference_mode():
            detection = artifact.detector(artifact.detector.preprocess.resize(rgb).unsqueeze(0))
        judgement = artifact.judge(detection.score.item(), detection.map[0].numpy(), size=rgb.shape[:2])
        assert image.path == str(sample.path)
        assert image.defect == sample.defect
        assert image.score == pytest.approx(judgement.score, rel=1e-4)
        assert (image.verdict, image.p_value) == (judgement.verdict, judgement.p_value)
        assert image.margin == pytest.approx(judgement.margin, abs=1e-3)
        np.testing.assert_allclose(score_map, detection.map[0].numpy(), rtol=1e-3)
        assert image.score == score_map.max()


def test_batches_do_not_matter(artifact: Artifact, samples: list[TestSample], evaluation: Evaluation) -> None:
    calls: list[tuple[int, int]] = []
    alone = evaluate(artifact, samples, batch_size=1, progress=lambda done, total: calls.append((done, total)))
    assert [i.score for i in alone.images] == pytest.approx([i.score for i in evaluation.images], rel=1e-4)
    assert calls == [(done, len(samples)) for done in range(1, len(samples) + 1)]


def test_another_false_reject_rate_is_the_calibrations_threshold(
    dense_artifact: Artifact, samples: list[TestSample]
) -> None:
    evaluation = evaluate(dense_artifact, samples)
    strict = evaluate(dense_artifact, samples, false_reject_rate=0.4)
    assert strict.threshold == dense_artifact.calibration.threshold(0.4) < evaluation.threshold
    assert (strict.threshold_rule, strict.alpha) == ("conformal", 0.4)
    for image in strict.images:
        assert image.verdict == ("fail" if image.score > strict.threshold else "pass")
    assert strict.image_auroc == evaluation.image_auroc
    assert strict.false_reject_rate == np.mean([i.verdict == "fail" for i in strict.images if i.defect == "good"])
    assert strict.false_reject_rate > 0


def test_a_rate_that_cannot_be_promised_is_said_as_what_can(
    dense_artifact: Artifact, samples: list[TestSample]
) -> None:
    calibration = dense_artifact.calibration
    evaluation = evaluate(dense_artifact, samples[:2], false_reject_rate=0.001)
    assert evaluation.alpha == calibration.attainable_alpha > 0.001
    assert evaluation.threshold == calibration.threshold(calibration.attainable_alpha)


def test_what_cannot_be_told_is_none(artifact: Artifact, samples: list[TestSample]) -> None:
    only_good = evaluate(artifact, samples[:6])
    assert (only_good.image_auroc, only_good.pixel_auroc, only_good.aupro, only_good.miss_rate) == (None,) * 4
    assert only_good.false_reject_rate == 0.0
    only_defects = evaluate(artifact, samples[6:12])
    assert (only_defects.image_auroc, only_defects.false_reject_rate) == (None, None)
    assert only_defects.false_reject_interval is None
    assert (only_defects.miss_rate, only_defects.by_defect["square"].auroc) == (0.0, None)
    assert only_defects.pixel_auroc is not None
    without_masks = evaluate(artifact, [samples[0], samples[12]])
    assert (without_masks.pixel_auroc, without_masks.aupro) == (None, None)
    assert without_masks.image_auroc is not None
    with pytest.raises(DatasetError, match="no test pictures"):
        evaluate(artifact, [])


def test_the_document_is_json(evaluation: Evaluation) -> None:
    document = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert set(document) == {
        "category", "version", "image_auroc", "pixel_auroc", "aupro", "threshold", "threshold_rule", "alpha",
        "false_reject_rate", "false_reject_interval", "miss_rate", "seen_in_training", "by_defect", "images",
    }  # fmt: skip
    assert set(document["by_defect"]["square"]) == {"images", "rejected", "missed", "auroc", "mean_score"}
    assert set(document["images"][0]) == {"path", "defect", "score", "verdict", "margin", "p_value"}
    assert len(document["images"]) == 14


def test_the_table_shows_each_defect(evaluation: Evaluation) -> None:
    console = Console(width=100, file=StringIO())
    console.print(table(evaluation))
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    for word in ("plate", evaluation.version, "good", "square", "dirt", "image AUROC", "25.0%", "train_max"):
        assert word in text


def test_the_interval_is_that_of_the_good_parts_rejected(artifact: Artifact, samples: list[TestSample]) -> None:
    two_of_five = [*samples[:3], *(replace(sample, defect="good", mask=None) for sample in samples[6:8])]
    evaluation = evaluate(artifact, two_of_five)
    assert evaluation.false_reject_rate == 2 / 5
    assert evaluation.false_reject_interval == pytest.approx((0.0527, 0.8534), abs=1e-4)
    console = Console(width=120, file=StringIO())
    console.print(table(evaluation))
    assert isinstance(console.file, StringIO)
    assert "good parts rejected 40.0% (95 % interval 5.3% to 85.3%)" in console.file.getvalue()
    assert json.loads(json.dumps(evaluation.to_json()))["false_reject_interval"] == [
        *(evaluation.false_reject_interval or ())
    ]


def test_good_parts_alone_have_no_figures_of_defects(artifact: Artifact, samples: list[TestSample]) -> None:
    console = Console(width=120, file=StringIO())
    console.print(table(evaluate(artifact, samples[:6])))
    console.print(table(evaluate(artifact, samples[:6] * 2)))
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert not any(word in text for word in ("AUROC", "AUPRO", "missed"))
    assert text.count("good parts rejected") == 2
    assert text.count("say little: the interval is wide") == 1
    assert "6 good parts say little" in text


def test_pictures_that_it_was_trained_on_are_recognised(artifact: Artifact, samples: list[TestSample]) -> None:
    good = [sample.path for sample in samples[:6]]
    # One of them was a copy, which training leaves out.
    record = artifact.manifest.dataset.model_copy(update={"images": 5, "fingerprint": fingerprint(good)})
    trained = replace(artifact, manifest=artifact.manifest.model_copy(update={"dataset": record}))
    assert evaluate(trained, samples).seen_in_training
    assert not evaluate(artifact, samples).seen_in_training
    assert not evaluate(trained, samples[:5]).seen_in_training


def test_a_mask_of_another_size_is_named(
    artifact: Artifact, samples: list[TestSample], bad: Picture, tmp_path: Path
) -> None:
    small = tmp_path / "small.png"
    small.write_bytes(bad(1))
    turned = tmp_path / "turned_mask.png"
    turned.write_bytes(encode_png(np.full(SIZE[::-1], 255, np.uint8)))
    with pytest.raises(DatasetError, match=r"turned_mask\.png is 96x128 pixels, but its picture is 128x96"):
        evaluate(artifact, [*samples[:2], TestSample(small, "square", turned)])


def test_a_picture_without_a_score_is_named(
    make: Callable[[Path], Path], samples: list[TestSample], tmp_path: Path
) -> None:
    broken = load(make(tmp_path))
    broken.detector.scorer.mean1.fill_(float("nan"))
    with pytest.raises(ScoreError, match=r"00\.png: The score is nan"):
        evaluate(broken, samples[:3])


def test_a_mask_has_the_size_of_its_picture_however_that_is_decoded(
    artifact: Artifact, tmp_path: Path, good: Picture, bad: Picture, enlarged: Callable[..., bytes]
) -> None:
    marked = np.zeros((768, 1024), np.uint8)
    marked[480:672, 640:896] = 255
    samples = []
    for name, picture, mask in (("good", good(1), None), ("square", bad(1), tmp_path / "mask.png")):
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(enlarged(picture))
        samples.append(TestSample(path, name, mask))
    (tmp_path / "mask.png").write_bytes(encode_png(marked))
    evaluation = evaluate(artifact, samples)
    assert [image.verdict for image in evaluation.images] == ["pass", "fail"]
    assert evaluation.pixel_auroc is not None
    for sample, image in zip(samples, evaluation.images, strict=True):
        tile = take(sample.path.read_bytes(), artifact.detector.preprocess).tile
        with torch.inference_mode():
            assert image.score == pytest.approx(artifact.detector(tile.unsqueeze(0)).score.item(), rel=1e-4)
