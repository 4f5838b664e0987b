"""The artifact folder -> the files that can be used, and why the others cannot.

A file is verified (`models.artifact.verify`) when it is first seen in a state, which is its number on the disk, its
size and the times of its change; and again in every other state, so that one that is being copied is refused until it
is whole. Hidden files and folders (`.incoming-`) are left alone. Not to be used by two threads at once.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from models.artifact import SUFFIX, verify
from models.errors import ArtifactError, ArtifactTooLarge
from models.locate_artifact import age
from models.manifest import Manifest

logger = logging.getLogger(__name__)

# Inode, bytes, nanoseconds of the last change by its owner's word (mtime) and by the system's (ctime).
State = tuple[int, int, int, int]

# A clock may tick so slowly that a file is written twice at one time: refusals of files that young are no final ones.
_SETTLED_NS = 2 * 10**9


@dataclass(frozen=True)
class Refusal:
    """A file, or a category, that is not served."""

    file: str  # relative to the artifact folder
    reason: str


@dataclass(frozen=True)
class Sound:
    """A file that was whole when it was in this state; its tensors' values are looked at when it is loaded."""

    path: Path
    manifest: Manifest
    state: State

    @property
    def category(self) -> str:
        """The category that it judges."""
        return self.manifest.category

    @property
    def version(self) -> str:
        """Its version, which is its name."""
        return self.path.name.removesuffix(SUFFIX)


@dataclass(frozen=True)
class Found:
    """What is in the folder: category -> version -> file, oldest first; and what is refused."""

    sound: Mapping[str, Mapping[str, Sound]]
    refused: tuple[Refusal, ...]


class Folder:
    """The artifact folder, and what is known of the files in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[Path, tuple[State, Sound | ArtifactError]] = {}
        self._told: dict[Path, str] = {}  # what was last said of a refused file in the log

    def look(self) -> Found:
        """Look through the folder; only files that are new or have changed are read."""
        if not self.path.is_dir():
            return Found({}, (self._refusal(self.path, "There is no artifact folder: `jigsight train` makes one."),))
        sound: dict[str, dict[str, Sound]] = {}
        refused, paths = [], sorted(self._files(), key=age)
        for path in paths:
            outcome = self._outcome(path)
            if isinstance(outcome, Sound):
                sound.setdefault(outcome.category, {})[outcome.version] = outcome
                self._told.pop(path, None)
            else:
                refused.append(self._refusal(path, str(outcome)))
        self._known = {path: known for path, known in self._known.items() if path in set(paths)}
        return Found(dict(sorted(sound.items())), tuple(refused))

    def refuse(self, file: Sound, error: ArtifactError) -> None:
        """Remember that a file could not be loaded, for as long as it stays as it is, if that is the file's fault."""
        if _passing(error):
            return
        if _state(file.path) == file.state:
            self._known[file.path] = (file.state, error)
        else:
            self._known.pop(file.path, None)

    def _files(self) -> Iterator[Path]:
        for place, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (Path(place) / name for name in names if name.endswith(SUFFIX) and not name.startswith("."))

    def _outcome(self, path: Path) -> Sound | ArtifactError:
        state = _state(path)  # before it is read: what changes meanwhile is read again
        known = self._known.get(path)
        if known is not None and known[0] == state:
            return known[1]
        outcome = self._verify(path, state)
        if state is None or (isinstance(outcome, ArtifactError) and (_young(state) or _passing(outcome))):
            self._known.pop(path, None)
        else:
            self._known[path] = (state, outcome)
        return outcome

    def _verify(self, path: Path, state: State | None) -> Sound | ArtifactError:
        try:
            manifest = verify(path)
        except ArtifactError as error:
            return error
        wanted = self.path / manifest.category / path.name
        if path != wanted or state is None:
            return ArtifactError(f"its category is {manifest.category!r}, so it belongs at {wanted}.")
        return Sound(path, manifest, state)

    def _refusal(self, path: Path, sentence: str) -> Refusal:
        if self._told.get(path) != sentence:
            self._told[path] = sentence
            logger.error("not served: %s: %s", path, sentence.removeprefix(f"{path} is not used: "))
        # The folder's own place is for the log; whoever asks over HTTP gets names relative to it.
        name = path.relative_to(self.path).as_posix()
        return Refusal(name, sentence.replace(f"{self.path}/", "").removeprefix(f"{name} is not used: "))


def _state(path: Path) -> State | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _young(state: State) -> bool:
    now = time.time_ns()
    return any(abs(now - changed) < _SETTLED_NS for changed in state[2:])


def _passing(error: ArtifactError) -> bool:
    """Whether it may go away without any change of the file: rights, the disk, a lack of memory or of descriptors."""
    return isinstance(error, ArtifactTooLarge) or isinstance(error.__cause__, OSError | MemoryError)
