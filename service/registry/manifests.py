"""The manifests of all versions that the database is known to hold: noted before a version is used.

The database is asked each time which versions it holds: one that was restored or emptied under a running service
gets those that are used noted again.
"""

import logging
from collections.abc import Iterable, Mapping

from models.manifest import Manifest
from service.errors import ManifestUnreadable
from service.registry.memory import Key
from service.registry.scan import Found
from service.storage.artifacts import Artifacts

logger = logging.getLogger(__name__)


class Manifests:
    """Not to be used by two threads at once."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._known: dict[Key, Manifest] = {}
        self._told: dict[Key, str] = {}  # what was last said in the log of one that cannot be read

    def note(self, found: Found) -> None:
        """Let the database know every sound file. Raises StoreUnavailable."""
        held = self._artifacts.held()
        self._known = {key: manifest for key, manifest in self._known.items() if key in held}
        files = [file for versions in found.sound.values() for file in versions.values()]
        new = [file for file in files if (file.category, file.version) not in self._known]
        if new:
            self._artifacts.remember((file.version, file.manifest) for file in new)
            self._known.update({(file.category, file.version): file.manifest for file in new})

    @property
    def known(self) -> Mapping[Key, Manifest]:
        """Those of every sound file and of what was recalled, but for those that cannot be read."""
        return self._known

    def recall(self, keys: Iterable[Key]) -> None:
        """Read what the database holds of versions without a file. What cannot be read is logged once.

        Raises StoreUnavailable.
        """
        for key in keys:
            if key in self._known:
                continue
            try:
                self._known[key] = self._artifacts.manifest(*key)
            except ManifestUnreadable as error:
                if self._told.get(key) != str(error):
                    logger.error("%s", error)
                self._told[key] = str(error)
