"""An evaluation as a folder to open in a browser: index.html, score histogram, ROC curve, and heatmaps.

The pictures shown are those that somebody should look at: good parts that were rejected and defects that were
missed, the worst first, and beside them typical hits. The page needs nothing from anywhere else.
"""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.heatmaps import Style, encode_png, render
from training.arrays import Rgb
from training.datasets import GOOD
from training.evaluate import Evaluation, JudgedImage
from training.evaluation_table import figure_text, rate_text
from training.metrics import roc
from training.picture_files import read_image, read_mask

_SHOWN = 8  # pictures of a kind
_EDGE = 360  # pixels of a shown picture's longer edge
_STYLES: tuple[Style, Style] = ("overlay", "heat")
_TRUTH = (0, 220, 90)
_BLUE, _RED, _GREY = "#2f6fab", "#c8452e", "#8a8f98"

_SEEN = """<p><strong>The good pictures are those that the detector was made from: it has seen them, and their
figures are too good to be expected of others.</strong></p>
"""
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
h1 small {{ font: 0.6em monospace; opacity: 0.7; }}
h2 {{ margin-top: 2.5rem; border-bottom: 1px solid #8886; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.25rem 0.9rem; border-bottom: 1px solid #8884; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
.side {{ display: flex; flex-wrap: wrap; gap: 1.5rem; }}
.side img {{ max-width: 100%; height: auto; flex: 0 1 32rem; min-width: 0; background: white; }}
.pictures {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr)); gap: 1.5rem; }}
figure {{ margin: 0; }}
figure img {{ width: 100%; height: auto; }}
figcaption {{ font-size: 0.9em; overflow-wrap: anywhere; }}
</style>
<h1>{title} <small>{version}</small></h1>
{summary}
<h2>Defect by defect</h2>
{defects}
<h2>Scores</h2>
<div class="side">{plots}</div>
{galleries}
</html>
"""


def write_report(evaluation: Evaluation, directory: Path) -> Path:
    """Write the report into `directory`, made if it is not there, and return the path of its page."""
    (directory / "pictures").mkdir(parents=True, exist_ok=True)
    plots = [_save(directory / "histogram.png", lambda axes: _histogram(axes, evaluation))]
    if evaluation.image_auroc is not None:
        plots.append(_save(directory / "roc.png", lambda axes: _roc(axes, evaluation)))
    galleries = (
        ("false-reject", "Good parts rejected, the highest score first", _false_rejects(evaluation.images)),
        ("miss", "Defects missed, the lowest score first", _misses(evaluation.images)),
        ("hit", "Typical hits, the middle score of each defect", _hits(evaluation.images)),
    )
    page = directory / "index.html"
    page.write_text(
        _PAGE.format(
            title=escape(evaluation.category),
            version=escape(evaluation.version),
            summary=_summary(evaluation),
            defects=_defects(evaluation),
            plots="".join(f'<img src="{name}" alt="{name.removesuffix(".png")}">' for name in plots),
            galleries="\n".join(_gallery(evaluation, directory, *gallery) for gallery in galleries),
        ),
        encoding="utf-8",
    )
    return page


def _false_rejects(images: Sequence[JudgedImage]) -> list[int]:
    found = [i for i, image in enumerate(images) if image.defect == GOOD and image.verdict == "fail"]
    return sorted(found, key=lambda i: -images[i].score)


def _misses(images: Sequence[JudgedImage]) -> list[int]:
    found = [i for i, image in enumerate(images) if image.defect != GOOD and image.verdict == "pass"]
    return sorted(found, key=lambda i: images[i].score)


def _hits(images: Sequence[JudgedImage]) -> list[int]:
    by_defect: dict[str, list[int]] = {}
    for i, image in enumerate(images):
        if image.defect != GOOD and image.verdict == "fail":
            by_defect.setdefault(image.defect, []).append(i)
    ordered = (sorted(found, key=lambda i: images[i].score) for found in by_defect.values())
    return [found[len(found) // 2] for found in ordered]


def _save(path: Path, draw: Callable[[Axes], None]) -> str:
    """One plot, by matplotlib's objects alone: pyplot would keep global state and look for a display."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    return path.name


def _histogram(axes: Axes, evaluation: Evaluation) -> None:
    scores = np.array([image.score for image in evaluation.images])
    good = np.array([image.defect == GOOD for image in evaluation.images])
    calibration = evaluation.evidence.calibration_scores
    everything = np.concatenate([scores, calibration, [evaluation.threshold]])
    bins = np.histogram_bin_edges(everything, bins=40).tolist()
    for name, group, colour in (("good", scores[good], _BLUE), ("defective", scores[~good], _RED)):
        if len(group):
            label = f"{name} ({len(group)})"
            axes.hist(group, bins, weights=np.full(len(group), 1 / len(group)), color=colour, alpha=0.6, label=label)
    label = f"good in training, out of sample ({len(calibration)})"
    weights = np.full(len(calibration), 1 / len(calibration))
    axes.hist(calibration, bins, weights=weights, histtype="step", color=_GREY, linewidth=1.5, label=label)
    axes.axvline(evaluation.threshold, color="black", linestyle="--", linewidth=1, label="threshold")
    axes.set_xlabel("score")
    axes.set_ylabel("share of the pictures")
    # Not within the axes, where the best place takes long to find and may hide a bar all the same.
    axes.figure.legend(frameon=False, fontsize="small", ncols=2, loc="outside upper center")


def _roc(axes: Axes, evaluation: Evaluation) -> None:
    scores = np.array([image.score for image in evaluation.images])
    defective = np.array([image.defect != GOOD for image in evaluation.images])
    axes.plot(*roc(scores, defective), color=_BLUE, label=f"AUROC {evaluation.image_auroc:.4f}")
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle=":", linewidth=1)
    if evaluation.false_reject_rate is not None and evaluation.miss_rate is not None:
        here = (evaluation.false_reject_rate, 1 - evaluation.miss_rate)
        axes.plot(*here, "o", color=_RED, clip_on=False, label=f"threshold {evaluation.threshold:.4f}")
    axes.set_xlabel("share of good parts rejected")
    axes.set_ylabel("share of defective parts found")
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize="small", loc="lower right")


def _summary(evaluation: Evaluation) -> str:
    chosen = "" if evaluation.alpha is None else f", for {evaluation.alpha:g} of good parts rejected"
    rows = (
        ("image AUROC", figure_text(evaluation.image_auroc)),
        ("pixel AUROC", figure_text(evaluation.pixel_auroc)),
        ("AUPRO, to 30 % false positives", figure_text(evaluation.aupro)),
        ("threshold", f"{evaluation.threshold:.4f} ({escape(evaluation.threshold_rule)}{chosen})"),
        ("good parts rejected", rate_text(evaluation.false_reject_rate, evaluation.false_reject_interval)),
        ("defects missed", rate_text(evaluation.miss_rate)),
    )
    return (_SEEN if evaluation.seen_in_training else "") + _table((), rows)


def _defects(evaluation: Evaluation) -> str:
    rows = [
        (
            escape(name),
            str(figures.images),
            str(figures.rejected),
            "" if name == GOOD else str(figures.missed),
            figure_text(figures.auroc),
            f"{figures.mean_score:.3f}",
        )
        for name, figures in evaluation.by_defect.items()
    ]
    return _table(("defect", "images", "rejected", "missed", "AUROC", "mean score"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"] if head else []
    lines += [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _gallery(evaluation: Evaluation, directory: Path, kind: str, title: str, chosen: Sequence[int]) -> str:
    figures = []
    for place, index in enumerate(chosen[:_SHOWN], start=1):
        name = f"pictures/{kind}-{place}.png"
        (directory / name).write_bytes(encode_png(_panel(evaluation, index)))
        image = evaluation.images[index]
        numbers = f"score {image.score:.3f}, margin {image.margin:.0%}, p = {image.p_value:.3g}"
        caption = f"{image.defect}/{Path(image.path).name}: {numbers}"
        figures.append(f'<figure><img src="{name}" alt=""><figcaption>{escape(caption)}</figcaption></figure>')
    count = f" ({len(figures)} of {len(chosen)})" if len(chosen) > len(figures) else ""
    body = f'<div class="pictures">{"".join(figures)}</div>' if figures else "<p>None.</p>"
    return f"<h2>{title}{count}</h2>\n{body}"


def _panel(evaluation: Evaluation, index: int) -> Rgb:
    """The picture with the true defect outlined in green, the overlay and the heat, side by side, for the screen."""
    sample, evidence = evaluation.evidence.samples[index], evaluation.evidence
    picture = read_image(sample.path)
    full_size = (picture.shape[0], picture.shape[1])
    scale = min(1.0, _EDGE / max(full_size))
    width, height = (max(1, round(edge * scale)) for edge in full_size[::-1])
    shown = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    drawn = [
        render(
            style,
            evidence.maps[index],
            evaluation.threshold,
            evidence.preprocess,
            size=(height, width),
            image=shown,
            pixel_threshold=evidence.pixel_threshold,
        )
        for style in _STYLES
    ]
    if sample.mask is not None:
        truth = read_mask(sample.mask, size=full_size).astype(np.uint8)
        small = cv2.resize(truth * 255, (width, height), interpolation=cv2.INTER_AREA) > 0
        contours, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(shown, contours, -1, _TRUTH, 1)
    gap = np.full((height, 8, 3), 255, np.uint8)
    return np.hstack([shown, gap, drawn[0], gap, drawn[1]])
