"""A whole training run: from a folder of good pictures to an artifact (seed, steps 1 to 6).

read -> kind -> [alignment] -> [jigsaw] -> [fusion] -> scorer -> threshold -> artifact. The stages in brackets stay,
go or are chosen, as the recipe says. Nothing but the good training pictures is ever opened.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from models.alignment import AlignmentConfig
from models.artifact import load, save
from models.errors import DatasetError
from models.manifest import (
    CATEGORY_PATTERN,
    Choice,
    DatasetRecord,
    Kind,
    Manifest,
    WeightsRecord,
)
from models.preprocess import Preprocess
from models.weights import NONE, load_weights
from training.alignments import ANY, inspected_share, unaligned
from training.batch_norm import estimate_batch_norm
from training.choose import Figures
from training.datasets import fingerprint, read_ignore_mask, training_images
from training.foreground import decide_kind
from training.pictures import Pictures
from training.progress import Progress
from training.request import TrainingRequest, TrainingResult
from training.stages import choose_alignment, run_stages
from training.synthetic import Tiles, make_tiles
from training.textures import FolderTextures, ProceduralTextures, Textures
from training.working_folder import SCRATCH, alone_in, packages, working_folder
from training.workshop import Workshop

_BATCH = 32
_MUCH, _LITTLE = 0.5, 0.02  # shares of a picture that are worth a word if they are not inspected


def train_category(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Train one category and write its artifact.

    A run that was killed and is started again with the same arguments goes on where it was, and ends in the
    same bytes. Raises DatasetError, RecipeError or WeightsError with what to do.
    """
    category = _category_name(request)
    paths = training_images(request.data, request.category)
    draft = _new_workshop(request, Path(), progress)
    backbone = draft.new_backbone()
    weights = WeightsRecord(
        source=Path(request.weights).name, sha256=load_weights(backbone, request.arch, request.weights)
    )
    textures, textures_id = _textures(request.textures)
    pictures = Pictures(paths, request.artifacts / SCRATCH, progress)
    ignored = None if request.ignore is None else read_ignore_mask(request.ignore, size=pictures.size)
    taken = Preprocess(draft.preprocess(ANY if _may_be_aligned(request) else None))
    images = pictures.read(taken)
    if ignored is not None and pictures.odd_shapes:
        raise DatasetError(f"An ignore mask fits pictures of one shape, and {pictures.odd_shapes}.")
    kind, kind_reason = _kind(request.kind, images)
    progress.say(f"{category}: {len(images)} good images; {kind}, {kind_reason}")
    if ignored is not None:
        progress.say(f"ignored: {ignored.mean():.1%} of the picture")

    dataset = DatasetRecord(images=len(images), fingerprint=fingerprint(paths))
    ignored_id = None if ignored is None else hashlib.sha256(np.packbits(ignored).tobytes()).hexdigest()
    inputs = (dataset.fingerprint, weights.sha256, textures_id, str(ignored_id))
    folder = working_folder(request, category, kind, inputs)
    workshop = replace(draft, folder=folder, ignored=ignored)
    if request.weights == NONE:
        estimate_batch_norm(backbone, _as_seen(images, taken), request.recipe.preprocess)
    with alone_in(folder):
        tiles = _tiles(images, kind, workshop, taken)
        align, alignment = None, _not_aligned(request)
        if taken.config.align is not None:
            align, alignment = choose_alignment(
                workshop, backbone, tiles, kind=kind, square=pictures.square, textures=textures
            )
            progress.say(f"alignment: {alignment.reason}")
            if align is None:
                plain = Preprocess(workshop.preprocess(None))
                tiles = _tiles(pictures.read(plain), kind, workshop, plain)
        stages = run_stages(workshop, backbone, tiles, align=align, kind=kind, textures=textures)
        fused = stages.fusion is not None
        config = workshop.config(align=align, fused=fused, scorer=stages.scorer, smoothing=stages.smoothing)
        detector = workshop.assemble(config, stages.backbone, stages.fusion)
        record, scores, warning = workshop.complete(detector, tiles)
    manifest = Manifest(
        category=category,
        kind=kind,
        kind_reason=kind_reason,
        detector=config,
        weights=weights,
        threshold=record,
        choices=(alignment, *stages.choices),
        validation=_validation(stages.figures),
        dataset=dataset,
        textures=textures_id,
        ignored=ignored_id,
        recipe=request.recipe.model_dump(mode="json"),
        packages=packages(),
    )
    path = save(detector, manifest, scores, folder=request.artifacts)
    artifact = load(path)  # what was written is what will be served: prove it can be read
    shutil.rmtree(folder)
    return TrainingResult(
        artifact=path,
        category=category,
        version=artifact.version,
        kind=kind,
        threshold=record,
        choices=manifest.choices,
        validation=manifest.validation,
        seconds={name: round(spent, 3) for name, spent in progress.seconds.items()},
        warnings=tuple(
            text for text in (warning, pictures.odd_shapes, *_not_looked_at(workshop, tiles, align)) if text
        ),
    )


def _not_looked_at(workshop: Workshop, tiles: Tiles, align: AlignmentConfig | None) -> Iterator[str]:
    """What a person should know of the parts of a picture that are not inspected."""
    if workshop.ignored is not None and (share := float(workshop.ignored.mean())) > _MUCH:
        yield f"the ignore mask covers {share:.0%} of the picture, and nothing there is inspected: is it inverted?"
    if align is not None and (share := inspected_share(tiles, align, keep=workshop.keep)) < 1 - _LITTLE:
        yield (
            f"parts are aligned, and what lies beyond their frame, {1 - share:.0%} of a picture, is not inspected: "
            "--align never keeps the whole picture"
        )


def _may_be_aligned(request: TrainingRequest) -> bool:
    """Whether pictures must be taken for an alignment, larger than the network sees them."""
    return request.recipe.alignment.use != "never" and request.kind != "texture"


def _as_seen(images: Tensor, taken: Preprocess) -> Iterator[Tensor]:
    """Pictures that `taken` has resized, as the network sees them unaligned, (b, 3, s, s) uint8 at a time."""
    batches = images.split(_BATCH)
    return iter(batches) if taken.config.align is None else map(unaligned, batches)


def _not_aligned(request: TrainingRequest) -> Choice:
    use = request.recipe.alignment.use
    texture = request.kind == "texture" and use != "never"
    reason = "a texture has no place and direction" if texture else f"the recipe says {use}"
    return Choice(stage="alignment", kept=False, reason=reason)


def _tiles(images: Tensor, kind: Kind, workshop: Workshop, taken: Preprocess) -> Tiles:
    """Tiles of pictures that `taken` has resized; their foregrounds leave out what is ignored."""
    area = None if workshop.ignored is None else taken.resize_mask(workshop.ignored).numpy()
    return make_tiles(images, kind, folder=workshop.folder, ignored=area)


def _category_name(request: TrainingRequest) -> str:
    name = request.category or request.data.resolve().name
    if not re.fullmatch(CATEGORY_PATTERN, name):
        raise DatasetError(
            f"'{name}' cannot be a category's name: up to 64 letters, digits, '-' and '_'. "
            "Give another with --category."
        )
    return name


def _kind(wished: Literal["auto", "object", "texture"], images: Tensor) -> tuple[Kind, str]:
    if wished != "auto":
        return wished, "as asked"
    decision = decide_kind([image.permute(1, 2, 0).numpy() for image in images])
    return decision.kind, decision.reason


def _textures(directory: Path | None) -> tuple[Textures, str]:
    if directory is None:
        return ProceduralTextures(), "procedural"
    textures = FolderTextures(directory)
    return textures, fingerprint(textures.paths)


def _new_workshop(request: TrainingRequest, folder: Path, progress: Progress) -> Workshop:
    return Workshop(
        recipe=request.recipe,
        arch=request.arch,
        pretrained=request.weights != NONE,
        devices=request.devices,
        folder=folder,
        progress=progress,
    )


def _validation(figures: Figures | None) -> dict[str, float | None]:
    if figures is None:
        return {}
    return {"synthetic_image_auroc": figures.image_auroc, "synthetic_pixel_auroc": figures.pixel_auroc}
