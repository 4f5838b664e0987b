"""Judging picture files with an artifact, without a server: the same steps as the service's, one at a time."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from models.artifact import Artifact
from models.errors import ImageError, ScoreError
from models.heatmaps import encode_png, render
from models.images import decode
from models.verdict import Judgement
from service.engine import detect


@dataclass(frozen=True)
class Finding:
    """What came of one file: a judgement, or in `error` why there is none. `size` is (height, width).

    A heatmap that was asked for and could not be written costs no judgement; `heatmap_error` says why.
    """

    path: Path
    judgement: Judgement | None = None
    size: tuple[int, int] | None = None
    heatmap: Path | None = None
    error: str | None = None
    heatmap_error: str | None = None

    @property
    def complete(self) -> bool:
        """Whether all came of it that was asked for."""
        return self.error is None and self.heatmap_error is None


def findings(
    artifact: Artifact, paths: Iterable[Path], *, heatmaps: Path | None, threshold: float | None = None
) -> Iterator[Finding]:
    """Judge each file in turn, at the artifact's own threshold by default.

    With `heatmaps`, overlays are written into that folder.
    """
    taken: set[str] = set()
    for path in paths:
        target = heatmaps / _free_name(path.stem, taken) if heatmaps else None
        try:
            data = path.read_bytes()
        except OSError as error:
            yield Finding(path, error=f"It cannot be read: {error.strerror}.")
            continue
        try:
            yield _judge(artifact, path, data, heatmap=target, threshold=threshold)
        except (ImageError, ScoreError) as error:
            yield Finding(path, error=str(error))


def _judge(artifact: Artifact, path: Path, data: bytes, *, heatmap: Path | None, threshold: float | None) -> Finding:
    rgb = decode(data)
    size = rgb.shape[:2]
    (reading,) = detect(artifact, [artifact.detector.preprocess.resize(rgb)])
    judgement = artifact.judge(reading.score, reading.map, size=size, threshold=threshold)
    found = Finding(path, judgement=judgement, size=size)
    if heatmap is None:
        return found
    manifest = artifact.manifest
    drawn = render(
        "overlay",
        reading.map,
        judgement.threshold,
        manifest.detector.preprocess,
        size=size,
        image=rgb,
        pixel_threshold=manifest.threshold.pixel,
    )
    try:
        heatmap.parent.mkdir(parents=True, exist_ok=True)
        heatmap.write_bytes(encode_png(drawn))
    except OSError as error:
        return replace(found, heatmap_error=f"Its heatmap cannot be written to {heatmap}: {error.strerror}.")
    return replace(found, heatmap=heatmap)


def _free_name(stem: str, taken: set[str]) -> str:
    """`stem.png`, or `stem-2.png` and so on: files of different folders often share their names."""
    names = (f"{stem}.png" if n == 1 else f"{stem}-{n}.png" for n in itertools.count(1))
    name = next(each for each in names if each not in taken)
    taken.add(name)
    return name
