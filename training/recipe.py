"""A recipe: every choice of training in one TOML file, read once into a frozen configuration.

`default`, `small`, `seed` and `demo` are shipped in `training/recipes/`; any other name is a file. Unknown keys are
refused, since a setting that is silently ignored is worse than one that is missing.
"""

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from models.alignment import OVERSAMPLING
from models.backbone import grids
from models.errors import RecipeError
from models.manifest import Rate, ThresholdRule
from models.preprocess import LARGEST_TAKEN, PreprocessConfig
from models.smoothing import kernel_radius
from training.fields import Count, OneOrMore, Positive, Section
from training.fit_coupled import CoupledSection
from training.fit_dense import DenseGaussianSection
from training.fit_gaussian import GaussianSection
from training.fit_memory_bank import MemoryBankSection
from training.recipe_flaws import flaws

_SHIPPED = Path(__file__).parent / "recipes"

# always: part of the detector. never: left out. choose: trained, and kept where synthetic validation gains.
Use = Literal["always", "choose", "never"]


class Schedule(Section):
    """How long to train: Adam until the mean loss of an epoch has not fallen by `tolerance` (relative)
    for `patience` epochs, and at most `max_epochs`.
    """

    learning_rate: Positive = 1e-4
    batch_size: Count = 32
    max_epochs: Count = 20
    patience: Count = 3
    tolerance: Annotated[float, Field(ge=0)] = 0.01


class JigsawSection(Section):
    """Seed, steps 2-3. Only objects have a jigsaw; a texture keeps its backbone whatever `use` says.

    The layers of the first `frozen_levels` levels stay as they are, and of the others' weights `blend` is the share
    of the tuned ones, the rest is what they were before: 0 and 1 are the source's fine-tuning. The classifier on top
    learns at a rate of its own.
    """

    use: Use = "choose"
    frozen_levels: Annotated[int, Field(ge=0, le=2)] = 2
    blend: Annotated[float, Field(gt=0, le=1)] = 0.5
    head_learning_rate: Positive = 1e-3
    tiles: Annotated[int, Field(ge=2, le=5)] = 3
    permutations: Annotated[int, Field(ge=2, le=1000)] = 30
    schedule: Schedule = Schedule()

    @model_validator(mode="after")
    def _enough_orders(self) -> "JigsawSection":
        possible = math.factorial(self.tiles**2)
        if self.permutations > possible:
            raise ValueError(f"{self.tiles}x{self.tiles} tiles have {possible} orders, not {self.permutations}")
        return self


class FusionSection(Section):
    """Seed, step 5.1: MFCSAM, in the source's form ("mfcsam"), or as what the third level has beyond it."""

    use: Use = "choose"
    form: Literal["mfcsam", "mfcsam_residual"] = "mfcsam_residual"
    schedule: Schedule = Schedule()


class AlignmentSection(Section):
    """Bringing parts into one place, direction and size: every combination of `ways` and `stretches` is tried.

    A stretch is how many times more one direction may be enlarged than the other, so that a long part fills the
    square. Only objects are aligned; "rotate" only where pictures are square.
    """

    use: Use = "choose"
    ways: OneOrMore[Literal["shift", "rotate"]] = ("rotate", "shift")
    stretches: OneOrMore[Annotated[float, Field(ge=1, le=4)]] = (1.0, 1.5, 2.0)


ScorerSection = Annotated[
    GaussianSection | DenseGaussianSection | MemoryBankSection | CoupledSection, Field(discriminator="name")
]


class MapSection(Section):
    """What is done to the score map. `smoothing`: standard deviations to try, in pixels of
    the whole picture squashed to the network's input.
    """

    smoothing: OneOrMore[Annotated[float, Field(ge=0, le=32)]] = (4.0, 2.0)


class CalibrationSection(Section):
    """How the good images are scored out of sample, in `folds` or one by one, and the rule that turns
    the scores into a threshold. One by one is quick for the dense Gaussian alone.
    """

    folds: Annotated[int, Field(ge=2)] | Literal["leave_one_out"] = 10
    rule: ThresholdRule = "conformal"
    false_reject_rate: Rate = 0.02


class ValidationSection(Section):
    """`share` of the good images, `most` at most, is held out while stages are chosen, and given `defects`
    synthetic defects each. A stage must gain `margin` in AUROC: less is the luck of the draw.
    """

    share: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    most: Annotated[int, Field(ge=2)] = 100
    defects: Count = 2
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.002


class Recipe(Section):
    """All settings of a training run but the data, the architecture and its weights."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    preprocess: PreprocessConfig = PreprocessConfig(reduced_jpeg=True)
    alignment: AlignmentSection = AlignmentSection()
    jigsaw: JigsawSection = JigsawSection()
    fusion: FusionSection = FusionSection()
    scorer: ScorerSection = GaussianSection()
    map: MapSection = MapSection()
    calibration: CalibrationSection = CalibrationSection()
    validation: ValidationSection = ValidationSection()

    @field_validator("preprocess", mode="before")
    @classmethod
    def _reduced_unless_said(cls, section: Any) -> Any:
        """What is new is trained with it; what an artifact does not say was made without.

        TOML has booleans: "no" in quotes is a mistake, whatever might be made of it.
        """
        if not isinstance(section, dict):
            return section
        reduced = section.get("reduced_jpeg", True)
        if not isinstance(reduced, bool):
            raise ValueError(f"reduced_jpeg must be true or false, without quotes, not {reduced!r}")
        return section | {"reduced_jpeg": reduced}

    @model_validator(mode="after")
    def _sections_agree(self) -> "Recipe":
        side = self.preprocess.side
        edge = grids(side)[2][0]  # the coarsest that a map can be
        widest = max(self.map.smoothing)
        if kernel_radius(widest * edge / side) >= edge:
            raise ValueError(f"map.smoothing of {widest} is too wide for an image_size of {self.preprocess.image_size}")
        if self.preprocess.align is not None:
            raise ValueError("preprocess.align follows from the pictures: say how to find it in [alignment]")
        if self.alignment.use != "never" and side * OVERSAMPLING > LARGEST_TAKEN:
            raise ValueError(
                f"pictures of {side} px are too large to be aligned (at most {LARGEST_TAKEN // OVERSAMPLING}): use "
                '--align never, or alignment.use = "never"'
            )
        if self.preprocess.resize is not None and self.alignment.use != "never":
            raise ValueError('preprocess.resize cuts out the centre: set alignment.use = "never"')
        return self


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with JigSight."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def read_recipe(name: str, *, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Recipe:
    """A shipped recipe by name, or a TOML file. `overrides` are settings by section; a section with another `name`
    (a scorer) replaces the recipe's.

    Raises RecipeError, naming the setting that is wrong.
    """
    path = _SHIPPED / f"{name}.toml" if name in shipped_recipes() else Path(name)
    if not path.is_file():
        if name.endswith(".toml"):
            there = ", ".join(shipped_recipes())
            raise RecipeError(f"There is no file {name}; shipped recipes are given by name without .toml: {there}.")
        raise RecipeError(f"There is no recipe '{name}': give one of {', '.join(shipped_recipes())}, or a TOML file.")
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {path} is not valid TOML: {error}.") from error
    for section, settings in (overrides or {}).items():
        _override(document, section, settings)
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(flaws(error, document, Recipe))
        raise RecipeError(f"The recipe {name} cannot be used. {wrong}.") from error
    if recipe.calibration.rule == "train_max" and "false_reject_rate" in (overrides or {}).get("calibration", {}):
        raise RecipeError(
            f"The recipe {name} takes the rule train_max, which has no false-reject rate. Leave "
            '--false-reject-rate out, or set calibration.rule = "conformal".'
        )
    return recipe


def _override(document: dict[str, Any], section: str, settings: Mapping[str, Any]) -> None:
    present = document.setdefault(section, {})
    if not isinstance(present, dict):
        return  # what is wrong with it is said by the validation
    if present.get("name") != settings.get("name", present.get("name")):
        present.clear()
    present.update(settings)
