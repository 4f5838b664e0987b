"""What must earn its place: alignment, jigsaw (seed, steps 2-3), fusion (seed, step 5.1), and the scorer's settings.

Each is part of the detector always, never, or where it gains on synthetic defects: as the recipe says. While
anything is chosen, the held-out images take no part in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from models.alignment import AlignmentConfig
from models.backbone import Backbone
from models.detector import ScorerConfig, build_alignment
from models.manifest import Choice, Kind
from models.mfcsam import AnyFusion
from training.alignments import alignments, label, unaligned
from training.choose import Candidate, Figures, ValidationSet, best, decide, gains, hold_out, make_validation_set
from training.recipe import Recipe, Use
from training.scratch import scratch
from training.synthetic import Synthetic, Tiles, in_frame
from training.textures import Textures
from training.workshop import Workshop

Stage = Literal["jigsaw", "fusion"]

_BATCH = 64
ENOUGH_TO_CHOOSE = 10  # good images; with fewer, a fifth of them says nothing about a stage


@dataclass(frozen=True)
class Stages:
    """The parts of the detector after choosing, and why they are what they are."""

    backbone: Backbone
    fusion: AnyFusion | None
    scorer: ScorerConfig
    smoothing: float
    choices: tuple[Choice, ...]
    figures: Figures | None


def choose_alignment(
    workshop: Workshop, backbone: Backbone, tiles: Tiles, *, kind: Kind, square: bool, textures: Textures
) -> tuple[AlignmentConfig | None, Choice]:
    """The alignment of good tiles that were taken large enough for one, and why; None: they stay as they are."""
    section, say = workshop.recipe.alignment, workshop.progress.say
    if kind == "texture":
        return None, Choice(stage="alignment", kept=False, reason="a texture has no place and direction")
    ways = alignments(tiles, section, square=square, keep=workshop.keep)
    if not ways:
        shown = square or "shift" in section.ways
        why = "no part stands out from the pictures' borders" if shown else "the pictures are not square"
        return None, Choice(stage="alignment", kept=False, reason=why)
    if len(tiles) < ENOUGH_TO_CHOOSE:
        if section.use == "always":
            return ways[0], Choice(stage="alignment", kept=True, reason=f"{label(ways[0])}: the recipe says always")
        return None, _too_few("alignment", len(tiles))
    good, held_out = _hold_out(workshop.recipe, tiles, textures)
    found: dict[AlignmentConfig | None, Candidate] = {}
    for align in ways if section.use == "always" else [None, *ways]:
        found[align] = _judged(workshop, backbone, align, good=good, held_out=held_out)
        say(f"alignment {label(align)}: mean AUROC {found[align].figures.decisive:.4f} on synthetic defects")
    winner = max(found, key=lambda align: found[align].figures.decisive)
    without = found.get(None)
    if without is not None and not gains(
        without.figures, found[winner].figures, margin=workshop.recipe.validation.margin
    ):
        winner = None
    return winner, Choice(
        stage="alignment",
        kept=winner is not None,
        reason=f"{label(winner)}: of {len(found)} the best mean AUROC on synthetic defects in held-out good images",
        figures={label(align): candidate.figures.decisive for align, candidate in found.items()},
    )


def _judged(
    workshop: Workshop, backbone: Backbone, align: AlignmentConfig | None, *, good: Tiles, held_out: ValidationSet
) -> Candidate:
    """The best that the scorer's settings make of an alignment; tiles are taken for one."""
    if align is None:
        small = ValidationSet(torch.cat([unaligned(batch) for batch in held_out.tiles.split(_BATCH)]), held_out.masks)
        return best(workshop.candidates(backbone, None, align=None, good=_shrunk(good, workshop), held_out=small))
    return best(workshop.candidates(backbone, None, align=align, good=good, held_out=held_out))


def _shrunk(tiles: Tiles, workshop: Workshop) -> Tiles:
    """Tiles that were taken for an alignment, as they would be without, in a file."""
    first = unaligned(tiles[0][0].unsqueeze(0))
    images = scratch((len(tiles), *first.shape[1:]), np.uint8, folder=workshop.folder)
    done = 0
    for batch in tiles.batches(_BATCH):
        images[done : done + len(batch)] = unaligned(batch).numpy()
        done += len(batch)
    return Tiles.without_foregrounds(torch.from_numpy(images))


def run_stages(
    workshop: Workshop,
    backbone: Backbone,
    tiles: Tiles,
    *,
    align: AlignmentConfig | None,
    kind: Kind,
    textures: Textures,
) -> Stages:
    """Train the stages that the recipe wants on good tiles, in order, and keep those that stay."""
    recipe = workshop.recipe
    plan = _plan(recipe, kind=kind, images=len(tiles))
    learning, held_out = tiles, None
    if len(tiles) >= ENOUGH_TO_CHOOSE and (workshop.settings > 1 or "choose" in [use for use, _ in plan.values()]):
        learning, held_out = _hold_out(recipe, tiles, textures)
    source = Synthetic(learning, textures, recipe.seed, build_alignment(workshop.preprocess(align)), keep=workshop.keep)
    if any(use != "never" for use, _ in plan.values()):
        source = in_frame(source, folder=workshop.folder)

    def candidates(backbone: Backbone, fusion: AnyFusion | None, measured: ValidationSet) -> list[Candidate]:
        return workshop.candidates(backbone, fusion, align=align, good=learning, held_out=measured)

    fusion: AnyFusion | None = None
    tried = candidates(backbone, None, held_out) if held_out is not None else []
    choices = []
    for stage, (use, reason) in plan.items():
        if use == "never":
            choices.append(Choice(stage=stage, kept=False, reason=reason))
            continue
        tuned = workshop.tune(backbone, source) if stage == "jigsaw" else backbone
        fused = workshop.fuse(backbone, source) if stage == "fusion" else fusion
        choice = Choice(stage=stage, kept=True, reason=reason)
        if held_out is not None:
            with_ = candidates(tuned, fused, held_out)
            if use == "choose":
                choice = decide(stage, best(tried).figures, best(with_).figures, margin=recipe.validation.margin)
            tried = with_ if choice.kept else tried
        if choice.kept:
            backbone, fusion = tuned, fused
        choices.append(choice)
        workshop.progress.say(f"{stage}: {'kept' if choice.kept else 'left out'}; {choice.reason}")
    return _concluded(workshop, backbone, fusion, choices=choices, tried=tried, images=len(tiles))


def _concluded(
    workshop: Workshop,
    backbone: Backbone,
    fusion: AnyFusion | None,
    *,
    choices: Sequence[Choice],
    tried: Sequence[Candidate],
    images: int,
) -> Stages:
    """The scorer's settings, the first or the best of those that were tried."""
    scorer, smoothing = workshop.fitter.first(images), workshop.recipe.map.smoothing[0]
    if not tried:
        few = [_too_few("settings", images)] if workshop.settings > 1 else []
        return Stages(backbone, fusion, scorer, smoothing, (*choices, *few), None)
    winner = best(tried)
    settings = Choice(
        stage="settings",
        kept=True,
        reason=f"{winner.label}: of {len(tried)} the best mean AUROC on synthetic defects in held-out good images",
        figures={candidate.label: candidate.figures.decisive for candidate in tried},
    )
    workshop.progress.say(f"settings: {settings.reason}")
    # Sizes that follow from the number of pictures are those of all of them, not of the part that was learnt from.
    scorer = winner.scorer if workshop.fitter.settings() > 1 else scorer
    return Stages(backbone, fusion, scorer, winner.smoothing, (*choices, settings), winner.figures)


def _plan(recipe: Recipe, *, kind: Kind, images: int) -> dict[Stage, tuple[Use, str]]:
    """What to do with each stage, and why, before anything is measured."""
    wished: dict[Stage, Use] = {"jigsaw": recipe.jigsaw.use, "fusion": recipe.fusion.use}
    plan: dict[Stage, tuple[Use, str]] = {}
    for stage, use in wished.items():
        if stage == "jigsaw" and kind == "texture" and use != "never":
            plan[stage] = "never", "a texture has no shape for a jigsaw to teach"
        elif use == "choose" and images < ENOUGH_TO_CHOOSE:
            plan[stage] = "never", _too_few(stage, images).reason
        else:
            plan[stage] = use, f"the recipe says {use}"
    return plan


def _too_few(stage: Literal["alignment", "jigsaw", "fusion", "settings"], images: int) -> Choice:
    reason = f"{images} good images are too few to measure it ({ENOUGH_TO_CHOOSE} would do)"
    return Choice(stage=stage, kept=stage == "settings", reason=reason)


def _hold_out(recipe: Recipe, tiles: Tiles, textures: Textures) -> tuple[Tiles, ValidationSet]:
    """The tiles to learn from, and a validation set made of the others."""
    section = recipe.validation
    learning, held = hold_out(tiles, share=section.share, most=section.most, seed=recipe.seed)
    return learning, make_validation_set(Synthetic(held, textures, recipe.seed), defects=section.defects)
