"""The artifacts that are loaded: each once, within a budget, backbones with the same weights shared.

Who is used longest ago goes first when there is no room. Whoever holds an artifact that has gone can go on using it:
it is freed with its last holder. One is loaded at a time, so beyond the budget there is at most that one.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from weakref import WeakValueDictionary

import torch
from torch import nn

from models.artifact import Artifact, load
from models.backbone import Backbone
from models.cores import compute_with
from models.cuda_lane import give_back_memory
from models.detector import Detector
from models.errors import ArtifactTooLarge
from models.fused_backbone import FusedBackbone, stem_dtype
from models.precision import Computed, Precision, name_of, pick_precision
from models.weights import fingerprint
from service.registry.scan import Sound

logger = logging.getLogger(__name__)

Key = tuple[str, str]  # category, version


class NoRoom(ArtifactTooLarge):
    """A sound artifact for which the budget has no room beside the others; in place of one of them it may fit."""


@dataclass(frozen=True)
class _Loaded:
    artifact: Artifact
    backbone: str  # its fingerprint
    backbone_bytes: int
    own_bytes: int  # of all that is not the backbone

    @property
    def computing_in(self) -> Computed:
        """What its network computes in."""
        backbone = self.artifact.detector.backbone
        assert isinstance(backbone, FusedBackbone), "what is kept was made ready"
        return name_of(backbone.dtype)

    @classmethod
    def of(cls, artifact: Artifact, backbone: str) -> "_Loaded":
        backbone_bytes = _bytes(artifact.detector.backbone)
        return cls(artifact, backbone, backbone_bytes, _bytes(artifact.detector) - backbone_bytes)


class Memory:
    """Loaded artifacts on one device. `budget` is in bytes of tensors; None: no limit. Safe in any thread."""

    def __init__(self, device: torch.device, *, budget: int | None, precision: Precision = "auto") -> None:
        self.device = device
        self.precision = precision
        self.budget = budget
        self._threads = torch.get_num_threads()  # convolutions are laid out for that many
        self._loaded: OrderedDict[Key, _Loaded] = OrderedDict()  # last used last
        self._coming: dict[Key, Future[Artifact]] = {}
        self._backbones: WeakValueDictionary[str, Backbone | FusedBackbone] = WeakValueDictionary()
        self._lock = threading.Lock()  # never held for long: the event loop waits for it
        self._door = threading.Lock()  # held while an artifact is loaded

    def get(self, key: Key) -> Artifact | None:
        """A loaded artifact, which is thereby used; None if it is not loaded. Does not wait."""
        with self._lock:
            if key not in self._loaded:
                return None
            self._loaded.move_to_end(key)
            return self._loaded[key].artifact

    def load(self, file: Sound, *, sacrifices: int = 1) -> Artifact:
        """The artifact of a file, loaded if it is not yet, by one thread however many ask. Raises ArtifactError.

        If the device is full, up to `sacrifices` others go, within the budget or not. With none, NoRoom if
        the budget has no room beside those that are loaded.
        """
        key = (file.category, file.version)
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
                return self._loaded[key].artifact
            coming = self._coming.get(key)
            if mine := coming is None:
                coming = self._coming[key] = Future()
        assert coming is not None
        if mine:
            self._fulfil(coming, key, file, sacrifices)
        return coming.result()

    def keep(self, keys: Collection[Key]) -> None:
        """Let go of all artifacts but these."""
        with self._lock:
            for key in self._loaded.keys() - set(keys):
                self._evict(key)

    @property
    def sizes(self) -> Mapping[Key, int]:
        """The bytes of each loaded artifact's tensors, those of a shared backbone included."""
        with self._lock:
            return {key: each.own_bytes + each.backbone_bytes for key, each in self._loaded.items()}

    def computing_in(self, key: Key) -> Computed | None:
        """What a loaded artifact's network computes in; None if it is not loaded. Not a use of it."""
        with self._lock:
            return self._loaded[key].computing_in if key in self._loaded else None

    @property
    def bytes(self) -> int:
        """What is counted against the budget: a backbone that several share counts once."""
        with self._lock:
            return _total(self._loaded.values())

    def _fulfil(self, coming: "Future[Artifact]", key: Key, file: Sound, sacrifices: int) -> None:
        try:
            with self._door:
                artifact = self._admit(key, file, sacrifices)
        except BaseException as error:
            with self._lock:
                del self._coming[key]
            coming.set_exception(error)
        else:
            with self._lock:
                del self._coming[key]
            coming.set_result(artifact)

    def _admit(self, key: Key, file: Sound, sacrifices: int) -> Artifact:
        while True:
            before = len(self.sizes)
            try:
                return self._place(key, file, sacrifices)
            except ArtifactTooLarge as error:
                if sacrifices == 0 or not (len(self.sizes) < before or self._make_way()):
                    raise
                logger.warning("%s The artifact that was not used for longest makes way for it.", error)
            sacrifices -= 1
            give_back_memory(self.device)  # after the except block, whose traceback holds what was half moved

    def _place(self, key: Key, file: Sound, sacrifices: int) -> Artifact:
        """Read a file, put it on the device, and then let go of whom it leaves no room for within the budget."""
        artifact = load(file.path)
        detector = artifact.detector
        digest = self._digest(detector)
        # An estimate: made ready, a backbone may take half as much, and directions twice as much, or more with padding.
        as_read = _Loaded.of(artifact, digest)
        shared = self._backbones.get(digest)
        if shared is not None:
            detector.backbone = shared
        if sacrifices == 0:
            self._check_room(as_read)
        compute_with(self._threads)
        try:
            artifact = artifact.ready(self.device, precision=self.precision)
        except ArtifactTooLarge:
            if sacrifices > 0:
                self._make_room(as_read)
            raise
        loaded = _Loaded.of(artifact, digest)
        if sacrifices == 0:
            self._check_room(loaded)
        self._make_room(loaded)
        self._backbones[digest] = artifact.detector.backbone
        with self._lock:
            self._loaded[key] = loaded
        logger.info("loaded %s on %s, computing in %s", file.path, self.device, loaded.computing_in)
        return artifact

    def _digest(self, detector: Detector) -> str:
        """The same of detectors whose backbones are the same once they are ready: with what they are laid out for."""
        backbone, config = detector.backbone, detector.preprocess.config
        assert isinstance(backbone, Backbone), "it is not ready yet"
        dtype = pick_precision(self.precision, self.device)
        stem = stem_dtype(backbone, dtype, self.device, exact_input=config.eight_digits)
        return f"{fingerprint(backbone.state_dict())} {config.image_size} {stem}"

    def _check_room(self, newcomer: _Loaded) -> None:
        if self.budget is None:
            return
        with self._lock:
            need = _total([*self._loaded.values(), newcomer])
            if self._loaded and need > self.budget:
                raise NoRoom(
                    f"{newcomer.artifact.path} is not loaded: with the others that would be {need:,} bytes, and the "
                    f"budget is {self.budget:,}. Its next picture makes room for it."
                )

    def _make_room(self, newcomer: _Loaded) -> None:
        if self.budget is None:
            return
        with self._lock:
            while self._loaded and _total([*self._loaded.values(), newcomer]) > self.budget:
                self._evict(next(iter(self._loaded)))
        if (need := _total([newcomer])) > self.budget:
            logger.warning("%s takes %d bytes, the whole budget is %d", newcomer.artifact.path, need, self.budget)

    def _make_way(self) -> bool:
        with self._lock:
            if not self._loaded:
                return False
            self._evict(next(iter(self._loaded)))
            return True

    def _evict(self, key: Key) -> None:
        del self._loaded[key]
        logger.info("category %s, version %s is no longer kept in memory", *key)


def _total(loaded: Collection[_Loaded]) -> int:
    backbones = {each.backbone: each.backbone_bytes for each in loaded}
    return sum(each.own_bytes for each in loaded) + sum(backbones.values())


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))
