"""What a run is made of: the pictures, weights, textures and ignore mask that a request names, opened and checked.

Each has an identity, which the artifact records, and by which a killed run is known again. Nothing but the good
training pictures is opened below the data folder.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from models.backbone import Backbone
from models.destination import check_folder
from models.errors import DatasetError
from models.manifest import CATEGORY_PATTERN, Kind, WeightsRecord
from models.preprocess import Preprocess
from models.weights import NONE
from training.alignments import ANY, unaligned
from training.arrays import Mask
from training.batch_norm import estimate_batch_norm
from training.datasets import check_enough, training_images
from training.picture_files import fingerprint, read_ignore_mask
from training.pictures import Pictures
from training.request import TrainingRequest
from training.synthetic import kind_of
from training.textures import FolderTextures, Textures, open_textures
from training.workshop import Workshop

_BATCH = 32


@dataclass(frozen=True)
class Materials:
    """`images` (n, 3, S, S) uint8 are the pictures as `taken` has resized them; `ignored` (h, w) is one's size.

    The backbone has its weights, for pictures normalised as the workshop says, and statistics of these pictures where
    there were no weights.
    """

    category: str
    kind: Kind
    kind_reason: str
    pictures: Pictures
    taken: Preprocess
    images: Tensor
    fingerprint: str
    backbone: Backbone
    weights: WeightsRecord
    textures: Textures
    textures_id: str
    ignored: Mask | None

    @property
    def ignored_id(self) -> str | None:
        """What tells the ignored area from others."""
        return None if self.ignored is None else hashlib.sha256(np.packbits(self.ignored).tobytes()).hexdigest()

    @property
    def identities(self) -> tuple[str, ...]:
        """What tells these materials from others."""
        return self.fingerprint, self.weights.sha256, self.textures_id, str(self.ignored_id)


def gather(request: TrainingRequest, workshop: Workshop) -> Materials:
    """Open what `request` names; pictures are taken for an alignment if there may be one.

    Raises JigSightError with what to do.
    """
    category, say = _category_name(request), workshop.progress.say
    check_folder(request.artifacts / category, option="--artifacts")
    files = training_images(request.data, request.category)
    check_enough(files)
    backbone, sha256 = workshop.load_backbone(request.weights)
    textures = open_textures(request.textures)
    textures_id = _identity(textures)
    pictures = Pictures(files, workshop.folder, workshop.progress)
    ignored = None if request.ignore is None else read_ignore_mask(request.ignore, size=pictures.size)
    taken = Preprocess(workshop.preprocess(ANY if _may_be_aligned(request) else None))
    images = pictures.read(taken)
    check_enough(pictures.paths)  # without copies
    if ignored is not None and pictures.odd_shapes:
        raise DatasetError(f"An ignore mask fits pictures of one shape, and {pictures.odd_shapes}.")
    kind, kind_reason = _kind(request.kind, images)
    say(f"{category}: {len(images)} good images; {kind}, {kind_reason}")
    if ignored is not None:
        say(f"ignored: {ignored.mean():.1%} of the picture")
    if request.weights == NONE:
        estimate_batch_norm(backbone, _as_seen(images, taken), workshop.preprocess(None))
    return Materials(
        category=category,
        kind=kind,
        kind_reason=kind_reason,
        pictures=pictures,
        taken=taken,
        images=images,
        fingerprint=fingerprint(files),
        backbone=backbone,
        weights=WeightsRecord(source=Path(request.weights).name, sha256=sha256),
        textures=textures,
        textures_id=textures_id,
        ignored=ignored,
    )


def _category_name(request: TrainingRequest) -> str:
    name = request.category or request.data.resolve().name
    if not re.fullmatch(CATEGORY_PATTERN, name):
        raise DatasetError(
            f"'{name}' cannot be a category's name: up to 64 letters, digits, '-' and '_'. "
            "Give another with --category."
        )
    return name


def _identity(textures: Textures) -> str:
    return fingerprint(textures.paths) if isinstance(textures, FolderTextures) else "procedural"


def _may_be_aligned(request: TrainingRequest) -> bool:
    """Whether pictures must be taken for an alignment, larger than the network sees them."""
    return request.recipe.alignment.use != "never" and request.kind != "texture"


def _kind(wished: Literal["auto", "object", "texture"], images: Tensor) -> tuple[Kind, str]:
    if wished != "auto":
        return wished, "as asked"
    decision = kind_of(images)
    return decision.kind, decision.reason


def _as_seen(images: Tensor, taken: Preprocess) -> Iterator[Tensor]:
    """Pictures that `taken` has resized, as the network sees them unaligned, (b, 3, s, s) uint8 at a time."""
    batches = images.split(_BATCH)
    return iter(batches) if taken.config.align is None else map(unaligned, batches)
