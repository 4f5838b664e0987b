"""Judging picture files with an artifact, without a server: the same steps as the service's, one at a time."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.artifact import Artifact
from models.errors import ImageError, ScoreError
from models.heatmaps import encode_png, render
from models.images import decode
from models.taken import take
from models.verdict import Judgement
from service.runs import detect


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
    artifact: Artifact, paths: Sequence[Path], *, heatmaps: Path | None, threshold: float | None = None
) -> Iterator[Finding]:
    """Judge each file in turn, at the artifact's own threshold by default.

    With `heatmaps`, overlays are written into that folder, named after their pictures.
    """
    for path, name in zip(paths, _names(paths), strict=True):
        target = heatmaps / name if heatmaps else None
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
    taken = take(data, artifact.detector.preprocess)
    (reading,) = detect(artifact, [taken.tile])
    judgement = artifact.judge(reading.score, reading.map, size=taken.size, threshold=threshold)
    found = Finding(path, judgement=judgement, size=taken.size)
    if heatmap is None:
        return found
    manifest = artifact.manifest
    drawn = render(
        "overlay",
        reading.map,
        judgement.threshold,
        manifest.detector.preprocess,
        size=taken.size,
        image=decode(data),
        pixel_threshold=manifest.threshold.pixel,
    )
    try:
        heatmap.parent.mkdir(parents=True, exist_ok=True)
        heatmap.write_bytes(encode_png(drawn))
    except OSError as error:
        return replace(found, heatmap_error=f"Its heatmap cannot be written to {heatmap}: {error.strerror}.")
    return replace(found, heatmap=heatmap)


def _names(paths: Sequence[Path]) -> list[str]:
    """A file name for each picture's overlay: with its folder's name where pictures of several share theirs."""
    stems = Counter(path.stem for path in paths)
    taken: set[str] = set()
    return [_free_name(path.stem if stems[path.stem] == 1 else _with_folder(path), taken) for path in paths]


def _with_folder(path: Path) -> str:
    folder = path.parent.resolve().name  # "." and ".." have no name of their own
    return f"{folder}-{path.stem}" if folder else path.stem


def _free_name(stem: str, taken: set[str]) -> str:
    """`stem.png`, or `stem-2.png` and so on."""
    names = (f"{stem}.png" if n == 1 else f"{stem}-{n}.png" for n in itertools.count(1))
    name = next(each for each in names if each not in taken)
    taken.add(name)
    return name
