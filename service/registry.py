"""Artifacts on disk -> the one that judges each category.

Every `<folder>/<category>/<version>.safetensors` is verified at start. Of a category's good files the active
one is kept in memory: the version that the database names, or else the file changed last (equal times: the
greater version). A named version whose file is missing or bad is not replaced by another behind anybody's
back: the category is not served, and says why. What is refused is named in the log and in `refused`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from models.artifact import SUFFIX, Artifact, load
from models.errors import ArtifactError
from models.locate_artifact import age
from models.manifest import Manifest
from service.errors import UnknownCategory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """A file, or a category, that is not served."""

    file: str  # relative to the artifact folder
    reason: str


@dataclass(frozen=True)
class Entry:
    """One category: the artifact that judges it, and the manifests of every good version, oldest first."""

    active: Artifact
    versions: Mapping[str, Manifest]


@dataclass(frozen=True)
class Registry:
    """The categories that are served."""

    folder: Path
    entries: Mapping[str, Entry]
    refused: tuple[Refusal, ...]

    def entry(self, category: str) -> Entry:
        """The entry of a category. Raises UnknownCategory."""
        try:
            return self.entries[category]
        except KeyError:
            raise UnknownCategory(category, known=sorted(self.entries)) from None


def open_registry(folder: Path, *, device: torch.device, activated: Mapping[str, str]) -> Registry:
    """Load every artifact of a folder; `activated` is the database's category -> version."""
    refused: list[Refusal] = []
    entries: dict[str, Entry] = {}
    if not folder.is_dir():
        refused.append(_refuse(".", f"There is no artifact folder {folder}: `jigsight train` makes one."))
    for path in sorted(folder.rglob(f"*{SUFFIX}"), key=age):
        try:
            artifact = _load(path, folder=folder, device=device)
        except ArtifactError as error:
            # The folder's own place is for the log; whoever asks over HTTP gets names relative to it.
            logger.error("not served: %s", error)
            name, reason = path.relative_to(folder).as_posix(), str(error).replace(f"{folder}/", "")
            refused.append(Refusal(name, reason.removeprefix(f"{name} is not used: ")))
            continue
        category = artifact.manifest.category
        entries[category] = _joined(entries.get(category), artifact, named=activated.get(category))
    for category, version in sorted(activated.items()):
        entry = entries.get(category)
        if entry is None or entry.active.version != version:
            refused.append(_missing(category, version, others=list(entry.versions) if entry else []))
            entries.pop(category, None)
    for category, entry in sorted(entries.items()):
        logger.info("category %s is judged by version %s on %s", category, entry.active.version, device)
    return Registry(folder, dict(sorted(entries.items())), tuple(refused))


def _load(path: Path, *, folder: Path, device: torch.device) -> Artifact:
    artifact = load(path, device=device)
    wanted = folder / artifact.manifest.category / path.name
    if path != wanted:
        raise ArtifactError(
            f"{path} is not used: its category is {artifact.manifest.category!r}, so it belongs at {wanted}."
        )
    return artifact


def _joined(entry: Entry | None, artifact: Artifact, *, named: str | None) -> Entry:
    """The entry with one more version, younger than those it has. Only the active one stays in memory."""
    if entry is None:
        return Entry(artifact, {artifact.version: artifact.manifest})
    versions = {**entry.versions, artifact.version: artifact.manifest}
    return Entry(entry.active if entry.active.version == named else artifact, versions)


def _missing(category: str, version: str, *, others: list[str]) -> Refusal:
    rest = f"There are {', '.join(others)}: activate one of them" if others else "There is no other"
    return _refuse(
        f"{category}/{version}{SUFFIX}",
        f"Version {version} of category {category!r} is the active one, but it has no usable file. {rest}, "
        "or put the file back. Until then the category is not served.",
    )


def _refuse(file: str, reason: str) -> Refusal:
    logger.error("not served: %s", reason)
    return Refusal(file, reason)
