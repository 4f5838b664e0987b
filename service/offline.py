"""Judging picture files with an artifact, without a server: the same steps as the service's, one at a time."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from models.artifact import Artifact
from models.errors import ImageError, ScoreError
from models.heatmaps import encode_png, render
from models.images import decode
from models.verdict import Judgement
from service.engine import detect


@dataclass(frozen=True)
class Finding:
    """What came of one file: a judgement, or the reason why there is none. `size` is (height, width)."""

    path: Path
    judgement: Judgement | None = None
    size: tuple[int, int] | None = None
    heatmap: Path | None = None
    error: str | None = None


def findings(artifact: Artifact, paths: Iterable[Path], *, heatmaps: Path | None) -> Iterator[Finding]:
    """Judge each file in turn. With `heatmaps`, overlays are written into that folder."""
    taken: set[str] = set()
    for path in paths:
        target = heatmaps / _free_name(path.stem, taken) if heatmaps else None
        try:
            yield _judge(artifact, path, target)
        except OSError as error:
            yield Finding(path, error=f"It cannot be read: {error.strerror}.")
        except (ImageError, ScoreError) as error:
            yield Finding(path, error=str(error))


def _judge(artifact: Artifact, path: Path, heatmap: Path | None) -> Finding:
    rgb = decode(path.read_bytes())
    size = rgb.shape[:2]
    (reading,) = detect(artifact, [artifact.detector.preprocess.resize(rgb)])
    judgement = artifact.judge(reading.score, reading.map, size=size)
    if heatmap is not None:
        preprocess = artifact.manifest.detector.preprocess
        drawn = render("overlay", reading.map, judgement.threshold, preprocess, size=size, image=rgb)
        heatmap.parent.mkdir(parents=True, exist_ok=True)
        heatmap.write_bytes(encode_png(drawn))
    return Finding(path, judgement=judgement, size=size, heatmap=heatmap)


def _free_name(stem: str, taken: set[str]) -> str:
    """`stem.png`, or `stem-2.png` and so on: files of different folders often share their names."""
    names = (f"{stem}.png" if n == 1 else f"{stem}-{n}.png" for n in itertools.count(1))
    name = next(each for each in names if each not in taken)
    taken.add(name)
    return name
