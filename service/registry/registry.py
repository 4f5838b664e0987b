"""Which version judges each category: the one that the database names last, never another behind anybody's back.

- `look` compares the folder and the database with what is known; a thread calls it again and again. A category that
  is seen for the first time gets its newest sound file activated; files that come later wait for an administrator.
- What is loaded was verified and stays as it is, whatever becomes of its file. What is not loaded and cannot be is
  said (`problem`), and tried again at every look.
- Reading never waits, but for `artifact`, which loads.
"""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

import torch

from models.artifact import Artifact
from models.errors import ArtifactError, ArtifactTooLarge
from models.loops.ready import ready_for
from models.precision import Precision, pick_precision
from service.errors import ArtifactUnavailable, StoreUnavailable
from service.registry.manifests import Manifests
from service.registry.memory import Key, Memory, NoRoom
from service.registry.scan import Folder, Found, Refusal, Sound
from service.registry.view import Entry, Snapshot, View, compose, tell
from service.storage.artifacts import Activation, Artifacts, ThresholdChange
from service.storage.audit import Change

logger = logging.getLogger(__name__)

ITSELF = "jigsight"  # who activates the first version of a category


class Registry:
    """The categories that are served. Made by `open_registry`; safe in any thread."""

    def __init__(self, folder: Path, *, memory: Memory, artifacts: Artifacts) -> None:
        self.folder = folder
        self.memory = memory
        self.artifacts = artifacts
        self.changing = threading.RLock()  # held by whoever changes what is active, and while looking
        self._files = Folder(folder)
        self._found = Found({}, ())
        self._activations: Mapping[str, Activation] = {}
        self._thresholds: Mapping[Key, ThresholdChange] = {}
        self._manifests = Manifests(artifacts)
        self._view = View()
        self._failures: dict[Key, str] = {}  # active versions whose file seemed sound and could not be loaded
        self._blind = False
        self._lost = False  # the last look failed, and not for want of the database

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Category -> its entry, by name."""
        return self._view.entries

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """The files that cannot be used."""
        return self._view.refused

    def entry(self, category: str) -> Entry:
        """What is known of a category. Raises UnknownCategory."""
        return self._view.entry(category)

    def sound(self, key: Key) -> Sound | None:
        """The file of a version, if it can be used."""
        return self._view.sound.get(key)

    def threshold(self, category: str, version: str) -> float | None:
        """What a version fails at instead of its manifest's threshold, if anything."""
        change = self._view.thresholds.get((category, version))
        return None if change is None else change.value

    def loaded(self, category: str) -> Artifact | None:
        """The active artifact if it is loaded, which is thereby used; None if not, or for an unknown category."""
        entry = self._view.entries.get(category)
        return None if entry is None else self.memory.get(entry.key)

    def artifact(self, category: str) -> Artifact:
        """The active artifact, loaded if it is not yet. Not for the event loop.

        Raises UnknownCategory or ArtifactUnavailable.
        """
        view = self._view
        entry = view.entry(category)
        artifact = self.memory.get(entry.key)
        if artifact is not None:
            return artifact
        file = view.sound.get(entry.key)
        reason = self._failures.get(entry.key) or entry.problem
        if file is None or reason is not None:
            raise _unavailable(category, str(reason))
        try:
            return self.memory.load(file)
        except ArtifactError as error:
            raise _unavailable(category, self._failed(file, error)) from None

    def problem(self, category: str) -> str | None:
        """Why a category cannot be judged at present, or could not be after a restart. Raises UnknownCategory."""
        entry = self.entry(category)
        return self._failures.get(entry.key) or entry.problem

    def ailments(self) -> list[str]:
        """Why not every active artifact is loaded or could be; nothing if all are."""
        if self._lost:
            return ["the artifact folder and the database could not be looked through, see the log"]
        if not self.entries:
            return [f"no category is served ({len(self.refused)} refused, see /v1/categories)"]
        unloaded = [category for category, entry in self.entries.items() if entry.key not in self.memory.sizes]
        problems = ((category, self.problem(category)) for category in unloaded)
        return [f"category {category}: {problem.rstrip('.')}" for category, problem in problems if problem]

    def snapshot(self) -> Snapshot:
        """What is loaded at this moment."""
        active = {category: entry.version for category, entry in self.entries.items()}
        return Snapshot(self.memory.sizes, self.memory.bytes, self.memory.budget, active)

    def preload(self) -> None:
        """Load the active artifacts, until the budget is full. What cannot be loaded is logged."""
        for category in self.entries:
            before = self.memory.sizes.keys()
            try:
                self.artifact(category)
            except ArtifactUnavailable as error:
                logger.error("%s", error)
            if before - self.memory.sizes.keys():
                logger.warning("the memory budget is full: the other categories are loaded when they are used")
                return

    def look(self) -> None:
        """Look again. Without the database nothing changes; that is logged once.

        Whatever else goes wrong is raised, and an ailment until a look succeeds.
        """
        try:
            self.refresh()
        except StoreUnavailable:
            if not self._blind:
                logger.warning(
                    "the database does not answer: activations and new files are not looked at until it does"
                )
            self._blind = True
        except Exception:
            self._lost = True
            raise
        else:
            self._blind = self._lost = False

    def refresh(self) -> None:
        """Compare the folder and the database with what is known. Raises StoreUnavailable, having changed nothing."""
        with self.changing:
            found = self._known_files()
            activations, thresholds = dict(self.artifacts.activations()), self.artifacts.thresholds()
            unseen = found.sound.keys() - activations.keys()
            for category in sorted(unseen):
                first = self._first(category, found)
                if first is not None:
                    activations[category] = first
            self._found = self._known_files() if unseen else found  # some of them may have been refused
            self._manifests.recall((category, each.version) for category, each in activations.items())
            self._activations, self._thresholds = activations, thresholds
            self._publish()
            self._try_again()

    def activated(self, activation: Activation) -> None:
        """Let a version judge from now on. It must have been committed, and `changing` be held."""
        self._activations = {**self._activations, activation.category: activation}
        self._publish()

    def threshold_changed(self, key: Key, change: ThresholdChange) -> None:
        """Let another threshold hold from now on. It must have been committed, and `changing` be held."""
        self._thresholds = {**self._thresholds, key: change}
        self._publish()

    def refuse(self, file: Sound, error: ArtifactError) -> None:
        """Note that a sound file could not be loaded. A lack of memory is no fault of the file."""
        if not isinstance(error, ArtifactTooLarge):
            with self.changing:
                self._files.refuse(file, error)

    def _publish(self) -> None:
        old = self._view
        new = self._view = compose(
            self._found,
            activations=self._activations,
            thresholds=self._thresholds,
            manifests=self._manifests.known,
        )
        active = {entry.key for entry in new.entries.values()}
        self._failures = {
            key: reason for key, reason in dict(self._failures).items() if key in active & new.sound.keys()
        }
        self.memory.keep(active)
        for category, entry in new.entries.items():
            tell(old.entries.get(category), entry)

    def _known_files(self) -> Found:
        """What is in the folder, all of it known to the database too."""
        found = self._files.look()
        self._manifests.note(found)
        return found

    def _first(self, category: str, found: Found) -> Activation | None:
        """Activate the newest file of a category that can be loaded; None if none can."""
        for version, file in reversed(list(found.sound[category].items())):
            try:
                self.memory.load(file)
            except ArtifactTooLarge as error:  # sound all the same
                logger.error("%s", error)
            except ArtifactError as error:
                self._files.refuse(file, error)
                continue
            detail = {"version": version, "reason": "the category was seen for the first time"}
            change = Change(ITSELF, "activate", f"category {category}", detail=detail)
            return self.artifacts.activate_first(category, version, change=change)
        return None

    def _failed(self, file: Sound, error: ArtifactError) -> str:
        reason = str(error).replace(f"{self.folder}/", "")
        key = file.category, file.version
        if self._failures.get(key) != reason:
            logger.error("%s", error)
        self._failures[key] = reason
        self.refuse(file, error)
        return reason

    def _try_again(self) -> None:
        """Load what could not be loaded, without taking anything from those that are."""
        for key in list(self._failures):
            file = self._view.sound.get(key)
            if file is None:
                continue
            try:
                self.memory.load(file, sacrifices=0)
                self._failures.pop(key, None)
            except NoRoom:
                self._failures.pop(key, None)  # the next picture makes room for it
            except ArtifactError as error:
                self._failed(file, error)


def open_registry(
    folder: Path,
    *,
    device: torch.device,
    artifacts: Artifacts,
    budget: int | None = None,
    precision: Precision = "auto",
) -> Registry:
    """Look through a folder and the database. `budget` is in bytes of loaded tensors. Raises StoreUnavailable.

    On a CPU compiled loops are made ready first: the first picture after an update would wait for them.
    """
    if device.type == "cpu":
        ready_for(pick_precision(precision, device))
    memory = Memory(device, budget=budget, precision=precision)
    registry = Registry(folder, memory=memory, artifacts=artifacts)
    registry.refresh()
    return registry


def _unavailable(category: str, reason: str) -> ArtifactUnavailable:
    return ArtifactUnavailable(f"Category {category!r} cannot be judged at present, and there is no verdict. {reason}")
