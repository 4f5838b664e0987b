"""A recipe: every choice of training in one TOML file, read once into a frozen configuration.

`default` and `seed` are shipped in `training/recipes/`; any other name is a file. Unknown keys are refused,
since a setting that is silently ignored is worse than one that is missing.
"""

import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.backbone import grids
from models.errors import RecipeError
from models.manifest import Rate, ThresholdRule
from models.preprocess import PreprocessConfig
from models.smoothing import kernel_radius

_SHIPPED = Path(__file__).parent / "recipes"

# always: part of the detector. never: left out. choose: trained, and kept where synthetic validation gains.
Use = Literal["always", "choose", "never"]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Schedule(_Section):
    """How long to train: Adam until the mean loss of an epoch has not fallen by `tolerance` (relative)
    for `patience` epochs, and at most `max_epochs`.
    """

    learning_rate: Positive = 1e-4
    batch_size: Count = 32
    max_epochs: Count = 20
    patience: Count = 3
    tolerance: Annotated[float, Field(ge=0)] = 0.01


class JigsawSection(_Section):
    """Seed, steps 2-3. Only objects have a jigsaw; a texture keeps its backbone whatever `use` says."""

    use: Use = "choose"
    tiles: Annotated[int, Field(ge=2, le=5)] = 3
    permutations: Annotated[int, Field(ge=2, le=1000)] = 30
    schedule: Schedule = Schedule()

    @model_validator(mode="after")
    def _enough_orders(self) -> "JigsawSection":
        possible = math.factorial(self.tiles**2)
        if self.permutations > possible:
            raise ValueError(f"{self.tiles}x{self.tiles} tiles have {possible} orders, not {self.permutations}")
        return self


class FusionSection(_Section):
    """Seed, step 5.1: MFCSAM."""

    use: Use = "choose"
    schedule: Schedule = Schedule()


class GaussianSection(_Section):
    """Seed, step 5.2. `channels` bounds the fused channels: PaDiM's random selection, seeded."""

    channels: Count = 550
    epsilon: Positive = 0.01
    smoothing: Annotated[float, Field(ge=0, le=32)] = 4.0


class CalibrationSection(_Section):
    """How the good images are scored out of sample, in `folds` or one by one, and the rule that turns
    the scores into a threshold.
    """

    folds: Annotated[int, Field(ge=2)] | Literal["leave_one_out"] = "leave_one_out"
    rule: ThresholdRule = "conformal"
    false_reject_rate: Rate = 0.02


class ValidationSection(_Section):
    """`share` of the good images is held out while stages are chosen, and given `defects` synthetic
    defects each. A stage must gain `margin` in AUROC: less is the luck of the draw.
    """

    share: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    defects: Count = 2
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.002


class Recipe(_Section):
    """All settings of a training run but the data, the architecture and its weights."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    preprocess: PreprocessConfig = PreprocessConfig()
    jigsaw: JigsawSection = JigsawSection()
    fusion: FusionSection = FusionSection()
    gaussian: GaussianSection = GaussianSection()
    calibration: CalibrationSection = CalibrationSection()
    validation: ValidationSection = ValidationSection()

    @model_validator(mode="after")
    def _smoothing_fits(self) -> "Recipe":
        size = self.preprocess.image_size
        edge = grids(size)[0][0]
        if kernel_radius(self.gaussian.smoothing * edge / size) >= edge:
            raise ValueError(f"gaussian.smoothing of {self.gaussian.smoothing} is too wide for an image_size of {size}")
        return self


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with JigSight."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def read_recipe(name: str, *, false_reject_rate: float | None = None) -> Recipe:
    """A shipped recipe by name, or a TOML file. A given `false_reject_rate` overrides the recipe's.

    Raises RecipeError, naming the setting that is wrong.
    """
    path = _SHIPPED / f"{name}.toml" if name in shipped_recipes() else Path(name)
    if not path.is_file():
        raise RecipeError(f"There is no recipe '{name}': give one of {', '.join(shipped_recipes())}, or a TOML file.")
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {path} is not valid TOML: {error}.") from error
    if false_reject_rate is not None:
        calibration = document.setdefault("calibration", {})
        if isinstance(calibration, dict):
            calibration["false_reject_rate"] = false_reject_rate
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors(include_url=False)]
        raise RecipeError(f"The recipe {path.name} cannot be used. " + "; ".join(wrong) + ".") from error
