"""What is known of every category at one moment, immutable: who judges it, what else there is, what is wrong.

A category is there if a version of it was ever activated. If the file of its active version is gone or bad, it has a
`problem` and no other version takes its place.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from models.artifact import SUFFIX
from models.manifest import Manifest
from service.errors import UnknownCategory
from service.registry.memory import Key
from service.registry.scan import Found, Refusal, Sound
from service.storage.artifacts import Activation, ThresholdChange

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One category. `versions` are those with a sound file, oldest first."""

    category: str
    version: str
    manifest: Manifest | None  # the active version's; None: it has no file, and the database's cannot be read
    since: datetime
    by: str
    versions: Mapping[str, Manifest]
    threshold: ThresholdChange | None = None
    problem: str | None = None  # why the active version cannot be loaded, should it not be loaded already

    @property
    def key(self) -> Key:
        """Category and active version."""
        return self.category, self.version

    @property
    def newer(self) -> tuple[str, ...]:
        """Versions whose files changed after the active one's."""
        versions = tuple(self.versions)
        return versions[versions.index(self.version) + 1 :] if self.version in versions else ()


@dataclass(frozen=True)
class View:
    """Every category, every sound file, and what is not served."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    sound: Mapping[Key, Sound] = field(default_factory=dict)
    thresholds: Mapping[Key, ThresholdChange] = field(default_factory=dict)
    refused: tuple[Refusal, ...] = ()

    def entry(self, category: str) -> Entry:
        """What is known of a category. Raises UnknownCategory."""
        try:
            return self.entries[category]
        except KeyError:
            raise UnknownCategory(category, known=sorted(self.entries)) from None


@dataclass(frozen=True)
class Snapshot:
    """What is loaded, for the metrics: (category, version) -> bytes, shared backbones included in each."""

    loaded: Mapping[Key, int]
    bytes: int  # in all; what is shared counts once
    budget: int | None
    active: Mapping[str, str]


def compose(
    found: Found,
    *,
    activations: Mapping[str, Activation],
    thresholds: Mapping[Key, ThresholdChange],
    manifests: Mapping[Key, Manifest],
) -> View:
    """The view of a folder and of what the database says; `manifests` holds those of the active versions."""
    refused = {refusal.file: refusal for refusal in found.refused}
    entries = {}
    for category, activation in sorted(activations.items()):
        files = found.sound.get(category, {})
        name = f"{category}/{activation.version}{SUFFIX}"
        manifest, problem = manifests.get((category, activation.version)), None
        if activation.version not in files:
            reason = refused[name].reason if name in refused else "it has no file."
            reason += "" if manifest else " Its manifest in the database is of a form that this JigSight does not read."
            problem = _problem(category, activation.version, reason=reason, others=list(files))
            refused.setdefault(name, Refusal(name, problem))
        entries[category] = Entry(
            category=category,
            version=activation.version,
            manifest=manifest,
            since=activation.activated_at,
            by=activation.activated_by,
            versions={version: file.manifest for version, file in files.items()},
            threshold=thresholds.get((category, activation.version)),
            problem=problem,
        )
    sound = {(file.category, file.version): file for files in found.sound.values() for file in files.values()}
    return View(entries, sound, thresholds, tuple(refused.values()))


def _problem(category: str, version: str, *, reason: str, others: list[str]) -> str:
    rest = f" or activate another version ({', '.join(others)})" if others else ""
    return (
        f"Version {version} of category {category!r} is the active one and cannot be loaded: {reason} "
        f"Put its file back{rest}."
    )


def tell(old: Entry | None, new: Entry) -> None:
    """Log what has changed about a category."""
    if old is None or old.version != new.version:
        logger.info(
            "category %s is judged by version %s, activated by %s", new.category, new.version, new.by or "anybody"
        )
    for version in new.newer:
        if old is None or version not in old.versions:
            logger.info(
                "category %s: version %s is newer than the active one, and not activated", new.category, version
            )
    if new.problem is not None and (old is None or old.problem != new.problem):
        logger.error("%s", new.problem)
    if new.problem is None and old is not None and old.problem is not None:
        logger.info("category %s: the file of its active version is back", new.category)
