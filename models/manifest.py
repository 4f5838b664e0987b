"""The manifest: what an artifact says about itself, as canonical JSON.

It holds no timestamps, host names or durations: the same inputs give the same bytes.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from models.detector import DetectorConfig
from models.precision import Computed

FORMAT: Literal[3] = 3
READABLE = (2, 3)  # of format 2 are directions in half precision (`models.compact_gaussian`)
CATEGORY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"

Kind = Literal["object", "texture"]
ThresholdRule = Literal["conformal", "train_max"]
Rate = Annotated[float, Field(gt=0, lt=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    # constants: an infinity in a recipe must be refused by `to_json`, not written as null.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class WeightsRecord(_Record):
    """Where the backbone's weights came from before any fine-tuning, and what was in them."""

    source: str
    sha256: Sha256


class ThresholdRecord(_Record):
    """A score above `value` fails. `false_reject_rate`: of good parts, about; None under `train_max`.

    Defect regions reach down to `pixel`; None: to `value`.
    """

    rule: ThresholdRule
    value: FiniteFloat
    false_reject_rate: Rate | None
    pixel: FiniteFloat | None = None


class Choice(_Record):
    """Whether a stage is part of the detector, why, and the figures behind it (None: not measurable).

    Of "alignment" and "settings" the figures are what each that was tried is worth: the mean AUROC.
    """

    stage: Literal["alignment", "jigsaw", "fusion", "settings"]
    kept: bool
    reason: str
    figures: dict[str, FiniteFloat | None] = {}


class DatasetRecord(_Record):
    """The good images that the detector was made from."""

    images: Annotated[int, Field(ge=2)]
    fingerprint: Sha256


class Manifest(_Record):
    """Everything about a category's detector that is not a tensor."""

    format: Literal[2, 3] = FORMAT
    category: Annotated[str, Field(pattern=CATEGORY_PATTERN)]
    kind: Kind
    kind_reason: str
    detector: DetectorConfig
    weights: WeightsRecord
    threshold: ThresholdRecord
    choices: tuple[Choice, ...]
    validation: dict[str, FiniteFloat | None]
    dataset: DatasetRecord
    textures: str
    ignored: Sha256 | None = None
    refitted_from: str | None = None
    precision: Computed | None = None
    recipe: dict[str, Any]
    packages: dict[str, str]

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, no NaN."""
        return json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
