"""What an administrator changes: the active version, and where it fails. Each change is noted with its author.

A version is loaded before it is activated, so the swap is between two parts: those that were taken on before are
judged by the artifact that they were taken on with. Not for the event loop.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from models.artifact import SUFFIX
from models.calibration import Calibration
from models.errors import ArtifactError
from service.errors import ArtifactUnavailable, NothingToRollBack, OtherVersionActive, UnknownVersion, VersionRefused
from service.registry.registry import Registry
from service.registry.scan import Sound
from service.registry.view import Entry
from service.storage.audit import Change


@dataclass(frozen=True)
class Author:
    """Who changes something, and by which request."""

    name: str
    request_id: str

    def change(self, action: str, category: str, **detail: object) -> Change:
        """The note of a change of a category."""
        return Change(self.name, action, f"category {category}", detail=detail, request_id=self.request_id)


def activate(registry: Registry, category: str, version: str, *, author: Author) -> Entry:
    """Let a version judge from now on. If it does already, nothing changes.

    Raises UnknownCategory, UnknownVersion, VersionRefused or StoreUnavailable; what was active then still is.
    """
    with registry.changing:
        registry.refresh()
        return _swap(registry, registry.entry(category), version, action="activate", author=author)


def roll_back(registry: Registry, category: str, *, author: Author) -> Entry:
    """Let the version judge that was active before. Rolling back twice goes back by two.

    Raises UnknownCategory, NothingToRollBack, VersionRefused or StoreUnavailable.
    """
    with registry.changing:
        registry.refresh()
        entry = registry.entry(category)
        history = registry.artifacts.history(category)
        *before, _ = steps(activation.version for activation in reversed(history))
        if not before:
            raise NothingToRollBack(
                f"No other version of category {category!r} was active before {entry.version}. "
                f"Activate one by name: {', '.join(entry.versions) or 'there is none'}."
            )
        try:
            return _swap(registry, entry, before[-1], action="rollback", author=author)
        except UnknownVersion as error:
            raise VersionRefused(str(error)) from None


def steps(versions: Iterable[str]) -> list[str]:
    """The versions that led to the active one, of all activations in their order; the active one is the last.

    Who returns to the version before undoes a step, so that a version that was rolled back is not come back to.
    """
    path: list[str] = []
    for version in versions:
        if path[-2:-1] == [version]:
            path.pop()
        elif path[-1:] != [version]:
            path.append(version)
    return path


def set_threshold(
    registry: Registry, category: str, value: float, *, author: Author, version: str | None = None
) -> tuple[Entry, Calibration]:
    """Let the active version fail above `value` from now on; the scores that it was calibrated by come with it.

    Raises UnknownCategory, OtherVersionActive if that is not `version`, ArtifactUnavailable or StoreUnavailable.
    """
    with registry.changing:
        entry = _active(registry, category, version)
        calibration = registry.artifact(category).calibration
        return _fail_at(registry, entry, value, rate=None, author=author), calibration


def set_false_reject_rate(
    registry: Registry, category: str, rate: float, *, author: Author, version: str | None = None
) -> Entry:
    """Let the active version fail where about `rate` of good parts do, by its own calibration.

    Raises what `set_threshold` does.
    """
    with registry.changing:
        entry = _active(registry, category, version)
        value = registry.artifact(category).calibration.threshold(rate)
        return _fail_at(registry, entry, value, rate=rate, author=author)


def reset_threshold(registry: Registry, category: str, *, author: Author) -> Entry:
    """Let the active version fail at its manifest's threshold again.

    Raises UnknownCategory, ArtifactUnavailable if its manifest cannot be read, or StoreUnavailable.
    """
    with registry.changing:
        entry = _active(registry, category, None)
        if entry.threshold is None or entry.threshold.value is None:
            return entry
        return _fail_at(registry, entry, None, rate=None, author=author)


def _active(registry: Registry, category: str, version: str | None) -> Entry:
    """What judges now: another process may have activated another version since the last look.

    Raises ArtifactUnavailable if nobody can say where it fails.
    """
    registry.refresh()
    entry = registry.entry(category)
    if version not in (None, entry.version):
        raise OtherVersionActive(category, str(version), active=entry.version)
    if entry.manifest is None:
        raise ArtifactUnavailable(f"Category {category!r} has no threshold at present. {entry.problem}")
    return entry


def _fail_at(registry: Registry, entry: Entry, value: float | None, *, rate: float | None, author: Author) -> Entry:
    detail = {"version": entry.version, "value": value, "false_reject_rate": rate}
    made = registry.artifacts.set_threshold(
        entry.category,
        entry.version,
        value=value,
        false_reject_rate=rate,
        change=author.change("threshold", entry.category, **detail),
    )
    registry.threshold_changed(entry.key, made)
    return registry.entry(entry.category)


def _swap(registry: Registry, entry: Entry, version: str, *, action: str, author: Author) -> Entry:
    if version == entry.version:
        return entry
    file = _file(registry, entry, version)
    try:
        registry.memory.load(file)
    except ArtifactError as error:
        registry.refuse(file, error)
        reason = str(error).replace(f"{registry.folder}/", "")
        raise _refused(entry, version, reason) from None
    change = author.change(action, entry.category, version=version, instead_of=entry.version)
    registry.activated(registry.artifacts.activate(entry.category, version, change=change))
    return registry.entry(entry.category)


def _file(registry: Registry, entry: Entry, version: str) -> Sound:
    file = registry.sound((entry.category, version))
    if file is not None:
        return file
    name = f"{entry.category}/{version}{SUFFIX}"
    for refusal in registry.refused:
        if refusal.file == name:
            raise _refused(entry, version, refusal.reason)
    versions = ", ".join(entry.versions) or "none"
    raise UnknownVersion(
        f"Category {entry.category!r} has no file of version {version!r}; there are: {versions}. Nothing has changed."
    )


def _refused(entry: Entry, version: str, reason: str) -> VersionRefused:
    return VersionRefused(
        f"Version {version} of category {entry.category!r} cannot be used: {reason} "
        f"Version {entry.version} is still the active one."
    )
