from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from models.artifact import Artifact
from models.heatmaps import encode_png
from models.images import decode
from training.datasets import TestSample
from training.evaluate import Evaluation, evaluate
from training.report import write_report


class Page(HTMLParser):
    """What a page shows, and whatever it loads or links to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def evaluation(
    tmp_path_factory: pytest.TempPathFactory,
    artifact: Artifact,
    good: Callable[[int], bytes],
    bad: Callable[[int], bytes],
) -> Evaluation:
    """Two good parts pass and one is rejected; three defects are found and one is missed."""
    folder = tmp_path_factory.mktemp("plates")
    marked = np.zeros((96, 128), np.uint8)
    marked[60:84, 80:112] = 255
    mask = folder / "mask.png"
    mask.write_bytes(encode_png(marked))
    samples = []
    for seed, (defect, looks) in enumerate(
        [("good", good), ("good", good), ("good", bad), *[("square <b>", bad)] * 3, ("dirt", good)]
    ):
        path = folder / f"{seed}.png"
        path.write_bytes(looks(seed))
        samples.append(TestSample(path, defect, mask if defect == "square <b>" else None))
    return evaluate(artifact, samples)


def test_the_page_shows_the_figures_and_the_errors(evaluation: Evaluation, tmp_path: Path) -> None:
    page = write_report(evaluation, tmp_path / "new" / "report")
    assert page == tmp_path / "new/report/index.html"
    shown = Page(page)
    assert shown.open == []
    for words in (
        "plate", evaluation.version, f"{evaluation.image_auroc:.4f}", f"{evaluation.aupro:.4f}", "25.0%",
        "33.3% (95 % interval 0.8% to 90.6%)", "square <b>", "good/2.png", "dirt/6.png", "square <b>/",
    ):  # fmt: skip
        assert words in shown.text
    pictures = [name for name in shown.sources if name.startswith("pictures/")]
    assert pictures == ["pictures/false-reject-1.png", "pictures/miss-1.png", "pictures/hit-1.png"]


def test_everything_lies_in_the_folder(evaluation: Evaluation, tmp_path: Path) -> None:
    shown = Page(write_report(evaluation, tmp_path))
    for source in shown.sources:
        assert decode((tmp_path / source).read_bytes()).std() > 5
    assert "://" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert {"histogram.png", "roc.png"} <= set(shown.sources)


def test_a_panel_is_the_picture_with_its_truth_the_overlay_and_the_heat(evaluation: Evaluation, tmp_path: Path) -> None:
    write_report(evaluation, tmp_path)
    panel = decode((tmp_path / "pictures/hit-1.png").read_bytes())
    assert panel.shape == (96, 3 * 128 + 2 * 8, 3)
    picture, overlay, heat = panel[:, :128], panel[:, 136:264], panel[:, 272:]
    green = (picture == (0, 220, 90)).all(axis=2)
    rows, columns = np.nonzero(green)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (60, 83, 80, 111)
    assert (overlay == 255).all(axis=2).any()  # the outline of what was found
    red, blue = heat[70:74, 94:98, 0].mean(), heat[70:74, 94:98, 2].mean()
    assert red > blue
    rejected = decode((tmp_path / "pictures/false-reject-1.png").read_bytes())[:, :128]
    assert not (rejected == (0, 220, 90)).all(axis=2).any()


def test_large_pictures_are_shown_small(evaluation: Evaluation, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(encode_png(np.full((1000, 2000, 3), 90, np.uint8)))
    samples = (TestSample(large, "dirt", None),)
    evidence = replace(evaluation.evidence, samples=samples, maps=evaluation.evidence.maps[-1:])
    write_report(replace(evaluation, images=evaluation.images[-1:], evidence=evidence), tmp_path)
    assert decode((tmp_path / "pictures/miss-1.png").read_bytes()).shape == (180, 3 * 360 + 2 * 8, 3)


def test_the_worst_come_first_and_not_all_are_shown(evaluation: Evaluation, tmp_path: Path) -> None:
    indices = [6] * 11
    images = tuple(replace(evaluation.images[6], path=f"{n}.png", score=float(10 + (n * 7) % 11)) for n in range(11))
    evidence = evaluation.evidence
    many = replace(
        evaluation,
        images=images,
        evidence=replace(evidence, samples=tuple(evidence.samples[i] for i in indices), maps=evidence.maps[indices]),
    )
    text = Page(write_report(many, tmp_path)).text
    assert "(8 of 11)" in text
    places = [text.index(f"dirt/{image.path}:") for image in sorted(images, key=lambda i: i.score)[:8]]
    assert places == sorted(places)
    assert not (tmp_path / "pictures/miss-9.png").exists()


def test_a_report_on_pictures_of_the_training_says_so(evaluation: Evaluation, tmp_path: Path) -> None:
    assert "it has seen them" not in Page(write_report(evaluation, tmp_path)).text
    shown = Page(write_report(replace(evaluation, seen_in_training=True), tmp_path))
    assert "it has seen them" in shown.text
    assert shown.open == []


def test_good_pictures_alone_make_a_report(artifact: Artifact, evaluation: Evaluation, tmp_path: Path) -> None:
    shown = Page(write_report(evaluate(artifact, evaluation.evidence.samples[:2]), tmp_path))
    assert shown.sources == ["histogram.png"]
    assert shown.text.count("None.") == 3
