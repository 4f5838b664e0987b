"""The detector: one module from uint8 pictures to a score and a map, the same in training and in service.

All sizes live in `DetectorConfig`; `build_detector` is the only place where submodules meet.
"""

import copy
from typing import Annotated, Literal, NamedTuple, TypeVar, assert_never

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.alignment import OVERSAMPLING, Alignment, Pose
from models.backbone import Architecture, Backbone, Levels, build_backbone, channels, grids
from models.compact_gaussian import CompactGaussian, CompactGaussianConfig
from models.coupled import Coupled, CoupledConfig
from models.device import full_precision
from models.folding import fits_bfloat16
from models.fused_backbone import FusedBackbone
from models.gaussian import DenseGaussian, DenseGaussianConfig
from models.memory_bank import MemoryBank, MemoryBankConfig
from models.mfcsam import AnyFusion, Fusion, ResidualFusion
from models.preprocess import Preprocess, PreprocessConfig
from models.smoothing import Smoothing, kernel_radius
from models.tiling import cut, stitch

# Pictures of that many pixels pass through the network together, and fewer of larger ones: this bounds memory.
_AT_ONCE, _USUAL = 64, 224

FusionName = Literal["none", "mfcsam", "mfcsam_residual"]
ScorerConfig = Annotated[
    CompactGaussianConfig | DenseGaussianConfig | MemoryBankConfig | CoupledConfig, Field(discriminator="name")
]
Scorer = CompactGaussian | DenseGaussian | MemoryBank | Coupled


class DetectorConfig(BaseModel):
    """Everything that fixes the shape of a detector; kept in the artifact.

    `smoothing` is the Gaussian's standard deviation in pixels of the whole picture, squashed to the network's input.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: Architecture
    preprocess: PreprocessConfig
    fusion: FusionName
    scorer: ScorerConfig
    smoothing: Annotated[float, Field(ge=0, le=32)]

    @model_validator(mode="after")
    def _kernel_fits(self) -> "DetectorConfig":
        if kernel_radius(self.map_smoothing) >= self.map_edge:
            raise ValueError(f"smoothing of {self.smoothing} px is too wide for a picture of {self.preprocess.side} px")
        return self

    @property
    def map_edge(self) -> int:
        """Height and width of the score map, without building what makes it."""
        first_level = self.scorer.levels[0] if isinstance(self.scorer, MemoryBankConfig) else 1
        finer = 1 if self.preprocess.align is None else OVERSAMPLING
        return grids(self.preprocess.side)[first_level - 1][0] * finer

    @property
    def map_smoothing(self) -> float:
        """`smoothing` in pixels of the score map."""
        return self.smoothing * self.map_edge / self.preprocess.side


class Detection(NamedTuple):
    """Scores (b,) and the maps (b, h, w) whose maxima they are; float32, larger is more anomalous."""

    score: Tensor
    map: Tensor


class Detector(nn.Module):
    """Alignment, preprocess, backbone, fusion, scorer and smoothing, in that order."""

    def __init__(
        self,
        *,
        alignment: Alignment | None,
        preprocess: Preprocess,
        backbone: Backbone | FusedBackbone,
        fusion: AnyFusion | None,
        scorer: Scorer,
        smoothing: Smoothing,
    ) -> None:
        super().__init__()
        self.alignment = alignment
        self.preprocess = preprocess
        self.backbone = backbone
        self.fusion = fusion
        self.scorer = scorer
        self.smoothing = smoothing

    @full_precision()
    def levels(self, batch: Tensor) -> tuple[Levels, Pose | None]:
        """(b, 3, S, S) uint8 -> the levels that the scorer sees, fused if there is a fusion, and the parts' poses.

        Fused ones are float32, others as the backbone gives them.
        """
        images, pose = (batch, None) if self.alignment is None else self.alignment(batch, self.smoothing.keep)
        tiles = self.preprocess.config.tiles
        levels: Levels = self.backbone(self.preprocess(cut(images, tiles)))
        fused: Levels = levels if self.fusion is None else self.fusion(*(level.float() for level in levels))
        return stitch(fused, tiles), pose

    @full_precision()
    def finish(self, maps: Tensor, pose: Pose | None) -> Tensor:
        """A scorer's maps (b, h, w) -> the maps that are judged, smooth and in the pictures' own frame."""
        return finish(maps, pose, alignment=self.alignment, smoothing=self.smoothing)

    @full_precision()
    def forward(self, batch: Tensor) -> Detection:
        """(b, 3, S, S) uint8 RGB pictures (from `preprocess.resize`), on the detector's device."""
        maps = [self._map(part) for part in batch.split(self.at_once)]
        score_map = maps[0] if len(maps) == 1 else torch.cat(maps)
        return Detection(score=score_map.flatten(1).amax(1), map=score_map)

    @property
    def at_once(self) -> int:
        """How many pictures pass through the network together, at most."""
        return max(1, _AT_ONCE * _USUAL**2 // self.preprocess.config.taken**2)

    def _map(self, batch: Tensor) -> Tensor:
        levels, pose = self.levels(batch)
        return self.finish(self.scorer(levels), pose)

    def for_scoring(self, device: torch.device, dtype: torch.dtype) -> "Detector":
        """A detector on the CPU -> one on `device` that can do nothing but score, faster: fused, and partly in `dtype`.

        In `dtype` are the backbone's activations, and the products of the compact Gaussian. That
        becomes float32 where the backbone's weights have more digits, as in artifacts from before there was a choice.
        """
        ready, scorer = self.for_levels(device, dtype), self.scorer
        assert isinstance(ready.backbone, FusedBackbone), "that is what it becomes"
        if isinstance(scorer, CompactGaussian):
            scorer = scorer.compute_in(ready.backbone.dtype, device)
        elif isinstance(scorer, DenseGaussian):
            scorer = scorer.settled()
        ready.scorer = _moved(scorer, device)
        return ready

    def for_levels(self, device: torch.device, dtype: torch.dtype) -> "Detector":
        """The same for `levels` and `finish`; its scorer is this detector's own, as yet unfitted perhaps."""
        backbone, exact = self.backbone, self.preprocess.config.eight_digits
        if isinstance(backbone, Backbone):
            if dtype != torch.float32 and not fits_bfloat16(backbone):
                dtype = torch.float32
            edge = self.preprocess.config.image_size
            backbone = FusedBackbone(backbone, edge=edge, dtype=dtype, device=device, exact_input=exact)
        elif device.type != next(backbone.buffers()).device.type:
            raise ValueError("a backbone that is shared is on another device")
        elif device.type == "cpu" and backbone.stem_dtype != torch.float32 and not exact:
            raise ValueError("a backbone that is shared would round the pixels")
        preprocess = self.preprocess.giving(backbone.stem_dtype if exact else torch.float32)
        return Detector(
            alignment=self.alignment,
            preprocess=_moved(preprocess, device),
            backbone=backbone,
            fusion=None if self.fusion is None else _moved(self.fusion, device),
            scorer=self.scorer,
            smoothing=_moved(self.smoothing.ready(), device),
        ).eval()

    def check(self) -> None:
        """Raise ArtifactError where the scorer or the smoothing would pass everything."""
        self.scorer.check()
        self.smoothing.check()


Part = TypeVar("Part", bound=nn.Module)


def _moved(part: Part, device: torch.device) -> Part:
    """A part of a detector, which is on the CPU, on `device`; a copy's buffers move one by one."""
    if device.type == "cpu":
        return part
    return copy.deepcopy(part, {id(buffer): buffer for buffer in part.buffers()}).to(device)


def finish(maps: Tensor, pose: Pose | None, *, alignment: Alignment | None, smoothing: Smoothing) -> Tensor:
    """What `Detector.finish` does, for who has no whole detector."""
    if alignment is None or pose is None:
        smoothed: Tensor = smoothing(maps)
        return smoothed
    located, outside = alignment.back(maps, pose)
    smoothed = smoothing(located)
    return torch.where(outside, smoothed.amin(dim=(1, 2), keepdim=True), smoothed)


def build_detector(config: DetectorConfig, *, backbone: Backbone | None = None) -> Detector:
    """A detector of the configured shape, with an unfitted scorer and random weights; a backbone may be given."""
    level_channels = channels(config.arch)
    return Detector(
        alignment=build_alignment(config.preprocess),
        preprocess=Preprocess(config.preprocess),
        backbone=build_backbone(config.arch) if backbone is None else backbone,
        fusion=build_fusion(config.fusion, config.arch, config.preprocess),
        scorer=build_scorer(config.scorer, level_channels, config.preprocess.side),
        smoothing=build_smoothing(config),
    )


def build_fusion(name: FusionName, arch: Architecture, preprocess: PreprocessConfig) -> AnyFusion | None:
    """The fusion of that name, if it is one, with random weights."""
    # A tile passes through the network alone, so the fusion's grids are those of one.
    sizes = channels(arch), grids(preprocess.image_size)
    match name:
        case "none":
            return None
        case "mfcsam":
            return Fusion(*sizes)
        case "mfcsam_residual":
            return ResidualFusion(*sizes)
        case _:
            assert_never(name)


def build_alignment(config: PreprocessConfig) -> Alignment | None:
    """What brings parts into one frame, if anything does."""
    return None if config.align is None else Alignment(config.align, side=config.side)


def build_smoothing(config: DetectorConfig) -> Smoothing:
    """The smoothing of the score map, with nothing ignored."""
    return Smoothing(config.map_smoothing, (config.map_edge, config.map_edge))


def build_scorer(config: ScorerConfig, level_channels: tuple[int, int, int], side: int) -> Scorer:
    """An unfitted scorer for the levels of pictures of `side` pixels."""
    level_grids = grids(side)
    match config:
        case CompactGaussianConfig():
            return CompactGaussian(config, level_channels, level_grids)
        case DenseGaussianConfig():
            return DenseGaussian(config, level_channels, level_grids)
        case MemoryBankConfig():
            return MemoryBank(config, level_channels, level_grids)
        case CoupledConfig():
            return Coupled(config, level_channels, level_grids)
        case _:
            assert_never(config)
