"""The detector: one module from uint8 tiles to a score and a map, the same in training and in service.

All sizes live in `DetectorConfig`; `build_detector` is the only place where submodules meet.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.backbone import Architecture, Backbone, Levels, build_backbone, channels, grids
from models.device import full_precision
from models.gaussian import DenseGaussian
from models.mfcsam import Fusion
from models.preprocess import Preprocess, PreprocessConfig
from models.smoothing import Smoothing, kernel_radius

FusionName = Literal["none", "mfcsam"]


class DenseGaussianConfig(BaseModel):
    """One Gaussian with a full covariance per position, over `channels` selected channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["dense_gaussian"] = "dense_gaussian"
    channels: Annotated[int, Field(ge=1, le=4096)]


class DetectorConfig(BaseModel):
    """Everything that fixes the shape of a detector; kept in the artifact.

    `smoothing` is the Gaussian's standard deviation in pixels of the network's input.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: Architecture
    preprocess: PreprocessConfig
    fusion: FusionName
    scorer: DenseGaussianConfig
    smoothing: Annotated[float, Field(ge=0, le=32)]

    @model_validator(mode="after")
    def _kernel_fits(self) -> "DetectorConfig":
        size = self.preprocess.image_size
        if kernel_radius(self.map_smoothing) >= grids(size)[0][0]:
            raise ValueError(f"smoothing of {self.smoothing} px is too wide for an image_size of {size}")
        return self

    @property
    def map_smoothing(self) -> float:
        """`smoothing` in pixels of the score map."""
        size = self.preprocess.image_size
        return self.smoothing * grids(size)[0][0] / size


class Detection(NamedTuple):
    """Scores (b,) and the maps (b, h, w) whose maxima they are; float32, larger is more anomalous."""

    score: Tensor
    map: Tensor


class Detector(nn.Module):
    """Preprocess, backbone, fusion, scorer and smoothing, in that order."""

    def __init__(
        self,
        *,
        preprocess: Preprocess,
        backbone: Backbone,
        fusion: Fusion | None,
        scorer: DenseGaussian,
        smoothing: Smoothing,
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.backbone = backbone
        self.fusion = fusion
        self.scorer = scorer
        self.smoothing = smoothing

    @full_precision()
    def levels(self, batch: Tensor) -> Levels:
        """(b, 3, s, s) uint8 -> the three levels that the scorer sees, fused if there is a fusion."""
        levels: Levels = self.backbone(self.preprocess(batch))
        return self.fusion(*levels) if self.fusion is not None else levels

    @full_precision()
    def forward(self, batch: Tensor) -> Detection:
        """(b, 3, s, s) uint8 RGB tiles (from `preprocess.resize`), on the detector's device."""
        score_map = self.smoothing(self.scorer(self.levels(batch)))
        return Detection(score=score_map.flatten(1).amax(1), map=score_map)


def build_detector(config: DetectorConfig) -> Detector:
    """A detector of the configured shape, with random weights and an unfitted scorer."""
    level_channels, level_grids = channels(config.arch), grids(config.preprocess.image_size)
    return Detector(
        preprocess=Preprocess(config.preprocess),
        backbone=build_backbone(config.arch),
        fusion=Fusion(level_channels, level_grids) if config.fusion == "mfcsam" else None,
        scorer=DenseGaussian(level_channels, level_grids[0], config.scorer.channels),
        smoothing=Smoothing(config.map_smoothing),
    )
