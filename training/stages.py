"""The stages that must earn their place: jigsaw (seed, steps 2-3) and fusion (seed, step 5.1).

Each is part of the detector always, never, or where it gains on synthetic defects: as the recipe says. While
stages are chosen, the held-out images take no part in training them.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.backbone import Backbone
from models.manifest import Choice, Kind
from models.mfcsam import Fusion
from training.choose import Figures, ValidationSet, decide, make_validation_set
from training.recipe import Recipe, Use
from training.synthetic import Synthetic, Tiles
from training.textures import Textures
from training.workshop import Workshop

Stage = Literal["jigsaw", "fusion"]

_ENOUGH_TO_CHOOSE = 10  # good images; with fewer, a fifth of them says nothing about a stage


@dataclass(frozen=True)
class Stages:
    """The parts of the detector after choosing, and why they are what they are."""

    backbone: Backbone
    fusion: Fusion | None
    choices: tuple[Choice, ...]
    figures: Figures | None


def run_stages(workshop: Workshop, backbone: Backbone, tiles: Tiles, *, kind: Kind, textures: Textures) -> Stages:
    """Train the stages that the recipe wants on good tiles, in order, and keep those that stay."""
    recipe = workshop.recipe
    plan = _plan(recipe, kind=kind, images=len(tiles))
    learning, held_out = tiles, None
    if any(use == "choose" for use, _ in plan.values()):
        learning, held_out = _hold_out(recipe, tiles, textures)
    source = Synthetic(learning, textures, recipe.seed)

    fusion: Fusion | None = None
    figures = workshop.figures(backbone, None, good=learning, held_out=held_out) if held_out is not None else None
    choices = []
    for stage, (use, reason) in plan.items():
        if use == "never":
            choices.append(Choice(stage=stage, kept=False, reason=reason))
            continue
        tuned = workshop.tune(backbone, source) if stage == "jigsaw" else backbone
        fused = workshop.fuse(backbone, source) if stage == "fusion" else fusion
        choice = Choice(stage=stage, kept=True, reason=reason)
        if held_out is not None and figures is not None:
            with_ = workshop.figures(tuned, fused, good=learning, held_out=held_out)
            choice = decide(stage, figures, with_, margin=recipe.validation.margin) if use == "choose" else choice
            figures = with_ if choice.kept else figures
        if choice.kept:
            backbone, fusion = tuned, fused
        choices.append(choice)
        workshop.progress.say(f"{stage}: {'kept' if choice.kept else 'left out'}; {choice.reason}")
    return Stages(backbone, fusion, tuple(choices), figures)


def _plan(recipe: Recipe, *, kind: Kind, images: int) -> dict[Stage, tuple[Use, str]]:
    """What to do with each stage, and why, before anything is measured."""
    wished: dict[Stage, Use] = {"jigsaw": recipe.jigsaw.use, "fusion": recipe.fusion.use}
    plan: dict[Stage, tuple[Use, str]] = {}
    for stage, use in wished.items():
        if stage == "jigsaw" and kind == "texture" and use != "never":
            plan[stage] = "never", "a texture has no shape for a jigsaw to teach"
        elif use == "choose" and images < _ENOUGH_TO_CHOOSE:
            plan[stage] = "never", f"{images} good images are too few to measure it ({_ENOUGH_TO_CHOOSE} would do)"
        else:
            plan[stage] = use, f"the recipe says {use}"
    return plan


def _hold_out(recipe: Recipe, tiles: Tiles, textures: Textures) -> tuple[Tiles, ValidationSet]:
    """The tiles to learn from, and a validation set made of the others."""
    order = np.random.default_rng([recipe.seed, len(tiles)]).permutation(len(tiles)).tolist()
    count = max(2, round(recipe.validation.share * len(tiles)))
    held = Synthetic(tiles.subset(sorted(order[:count])), textures, recipe.seed)
    return tiles.subset(sorted(order[count:])), make_validation_set(held, defects=recipe.validation.defects)
