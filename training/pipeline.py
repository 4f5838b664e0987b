"""A whole training run: from a folder of good pictures to an artifact (seed, steps 1 to 6).

read -> kind -> [alignment] -> [jigsaw] -> [fusion] -> scorer -> threshold -> artifact. The stages in brackets stay,
go or are chosen, as the recipe says.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from models.alignment import AlignmentConfig
from models.detector import DetectorConfig
from models.manifest import Choice, DatasetRecord, Manifest, ThresholdRecord
from models.preprocess import Preprocess
from models.weights import NONE
from training.alignments import inspected_share
from training.choose import Figures
from training.datasets import check_enough, too_few
from training.look_alikes import look_alikes, twins
from training.materials import Materials, gather
from training.outcome import conclude
from training.progress import Progress
from training.recipe import Recipe
from training.request import TrainingRequest, TrainingResult
from training.stages import Stages, choose_alignment, run_stages
from training.suspects import suspects
from training.synthetic import Tiles, make_tiles
from training.working_folder import SCRATCH, alone_in, packages, working_folder
from training.workshop import Workshop

_MUCH, _LITTLE = 0.5, 0.02  # shares of a picture that are worth a word if they are not inspected


def train_category(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Train one category and write its artifact.

    A run that was killed and is started again with the same arguments goes on where it was, and ends in the
    same bytes. Raises JigSightError with what to do.
    """
    workshop = Workshop(
        recipe=request.recipe,
        arch=request.arch,
        pretrained=request.weights != NONE,
        devices=request.devices,
        folder=request.artifacts / SCRATCH,
        progress=progress,
    )
    materials = gather(request, workshop)
    folder = working_folder(request, materials.category, materials.kind, materials.identities)
    workshop = replace(workshop, folder=folder, ignored=materials.ignored)
    with alone_in(folder):
        framing = _framing(workshop, materials, request)
        tiles, align = framing.tiles, framing.align
        stages = run_stages(
            workshop, materials.backbone, tiles, align=align, kind=materials.kind, textures=materials.textures
        )
        fused = stages.fusion is not None
        config = workshop.config(align=align, fused=fused, scorer=stages.scorer, smoothing=stages.smoothing)
        detector = workshop.assemble(config, stages.backbone, stages.fusion)
        groups = look_alikes(tiles.batches(), detector.smoothing.keep)
        record, scores, warning = workshop.complete(detector, tiles, groups=groups)
    manifest = _manifest(materials, framing, stages, config=config, threshold=record, recipe=request.recipe)
    pictures = materials.pictures
    odd = (suspects(scores, pictures.paths, record), pictures.copies, twins(groups, pictures.paths))
    warnings = (warning, *odd, too_few(int(groups.max()) + 1), pictures.odd_shapes, *_not_looked_at(workshop, framing))
    return conclude(workshop, detector, manifest, scores, artifacts=request.artifacts, warnings=warnings)


@dataclass(frozen=True)
class Framing:
    """The alignment of a category, or none, why, and the good tiles as it takes them."""

    align: AlignmentConfig | None
    choice: Choice
    tiles: Tiles


def _framing(workshop: Workshop, materials: Materials, request: TrainingRequest) -> Framing:
    tiles = _tiles(workshop, materials, materials.images, materials.taken)
    if materials.taken.config.align is None:
        return Framing(None, _not_aligned(request), tiles)
    pictures = materials.pictures
    align, choice = choose_alignment(
        workshop,
        materials.backbone,
        tiles,
        kind=materials.kind,
        square=pictures.square,
        textures=materials.textures,
    )
    workshop.progress.say(f"alignment: {choice.reason}")
    if align is None:
        plain = Preprocess(workshop.preprocess(None))
        tiles = _tiles(workshop, materials, pictures.read(plain), plain)
        check_enough(pictures.paths)  # smaller than before, some may look the same
    return Framing(align, choice, tiles)


def _tiles(workshop: Workshop, materials: Materials, images: Tensor, taken: Preprocess) -> Tiles:
    """Tiles of pictures that `taken` has resized; their foregrounds leave out what is ignored."""
    area = None if materials.ignored is None else taken.resize_mask(materials.ignored).numpy()
    return make_tiles(images, materials.kind, folder=workshop.folder, ignored=area)


def _not_aligned(request: TrainingRequest) -> Choice:
    use = request.recipe.alignment.use
    texture = request.kind == "texture" and use != "never"
    reason = "a texture has no place and direction" if texture else f"the recipe says {use}"
    return Choice(stage="alignment", kept=False, reason=reason)


def _manifest(
    materials: Materials,
    framing: Framing,
    stages: Stages,
    *,
    config: DetectorConfig,
    threshold: ThresholdRecord,
    recipe: Recipe,
) -> Manifest:
    return Manifest(
        category=materials.category,
        kind=materials.kind,
        kind_reason=materials.kind_reason,
        detector=config,
        weights=materials.weights,
        threshold=threshold,
        choices=(framing.choice, *stages.choices),
        validation=_validation(stages.figures),
        dataset=DatasetRecord(images=len(framing.tiles), fingerprint=materials.fingerprint),
        textures=materials.textures_id,
        ignored=materials.ignored_id,
        recipe=recipe.model_dump(mode="json"),
        packages=packages(),
    )


def _validation(figures: Figures | None) -> dict[str, float | None]:
    if figures is None:
        return {}
    return {"synthetic_image_auroc": figures.image_auroc, "synthetic_pixel_auroc": figures.pixel_auroc}


def _not_looked_at(workshop: Workshop, framing: Framing) -> Iterator[str]:
    """What a person should know of the parts of a picture that are not inspected."""
    if workshop.ignored is not None and (share := float(workshop.ignored.mean())) > _MUCH:
        yield f"the ignore mask covers {share:.0%} of the picture, where nothing is inspected: perhaps it is inverted"
    if framing.align is None:
        return
    if (share := inspected_share(framing.tiles, framing.align, keep=workshop.keep)) < 1 - _LITTLE:
        yield (
            f"parts are aligned, and what lies beyond their frame, {1 - share:.0%} of a picture, is not inspected: "
            "--align never keeps the whole picture"
        )
