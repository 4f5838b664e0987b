"""From an RGB picture to the network's input, and from a score map back to the picture.

Owns the only resize in the project, so that training, evaluation, the command line and the service cannot
differ by one. The whole picture is squashed to a square: a defect at the border must be seen. A recipe may
ask for the evaluation habit of the literature instead (resize, then cut the centre out).
"""

import copy
import math
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from torch import Tensor, nn

from models.alignment import OVERSAMPLING, AlignmentConfig
from models.cores import on_one_core

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LARGEST_TAKEN = 4096  # pixels: a batch of 16 such pictures takes 0.8 GB as bytes, and four times that normalised
_ROUNDING = 1e-4  # shares of area that differ by less are equal
_NO_DIGIT = 1e-9  # what computing in float64 may leave
_SMALLEST_STEP, _LARGEST_STEP = 2.0**-7, 2.0**14  # of grey levels: beyond, float16 would not hold them

Edge = Annotated[int, Field(ge=32, le=2048)]
PerChannel = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


class PreprocessConfig(BaseModel):
    """Sizes and normalisation, kept in the artifact.

    `image_size` is the edge of the square that the network sees, in pixels and a multiple of 32. With
    `resize`, the picture is squashed to `resize`² and the centre `image_size`² of that is used. With `tiles`, the
    network sees `tiles`² such squares, side by side, one at a time (see `models.tiling`). With `reduced_jpeg`, large
    JPEGs are decoded at a fraction of their size (see `models.taken`); without, as all artifacts were made before there
    was such a thing, whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: Edge = 224
    resize: Edge | None = None
    tiles: Annotated[int, Field(ge=1, le=8)] = 1
    align: AlignmentConfig | None = None
    reduced_jpeg: bool = False
    mean: PerChannel = IMAGENET_MEAN
    std: PerChannel = IMAGENET_STD

    @model_validator(mode="after")
    def _sizes_fit(self) -> "PreprocessConfig":
        if self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32, not {self.image_size}")
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(f"resize ({self.resize}) must not be smaller than image_size ({self.image_size})")
        if self.resize is not None and self.align is not None:
            raise ValueError(f"resize ({self.resize}) cuts out the centre, which align finds by itself; choose one")
        if self.resize is not None and self.tiles > 1:
            raise ValueError(
                f"resize ({self.resize}) cuts out the centre, which tiles ({self.tiles}) do not; choose one"
            )
        if self.taken > LARGEST_TAKEN:
            raise ValueError(
                f"tiles times image_size must be at most {LARGEST_TAKEN}, half of that where parts are aligned, "
                f"not {self.side}"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, not {self.std}")
        return self

    @property
    def side(self) -> int:
        """Edge of what is cut into tiles, in pixels: `tiles` times `image_size`."""
        return self.tiles * self.image_size

    @property
    def taken(self) -> int:
        """Edge of what `Preprocess.resize` gives, in pixels: `side`, and more where the part is yet to be aligned."""
        return self.side * (1 if self.align is None else OVERSAMPLING)

    @property
    def squashed(self) -> int:
        """Edge of the square that a whole picture is squashed to, in pixels: `taken`, or `resize`, its margin too."""
        return self.resize or self.taken

    @property
    def eight_digits(self) -> bool:
        """Whether bfloat16 and float16 hold each normalised pixel: as `models.whole_numbers` has it, not aligned."""
        means, stds = ([255 * each for each in values] for values in (self.mean, self.std))
        levels = all(0 <= mean <= 255 and abs(mean - round(mean)) < _NO_DIGIT for mean in means)
        powers = all(
            _SMALLEST_STEP <= std <= _LARGEST_STEP and abs(math.log2(std) - round(math.log2(std))) < _NO_DIGIT
            for std in stds
        )
        return levels and powers and self.align is None


class Preprocess(nn.Module):
    """`resize` makes squares of uint8 on the CPU, one picture at a time; `forward` normalises a batch of them.

    Their edge s is the configuration's `taken`; after the alignment, if there is one, it is `side`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: PreprocessConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1))
        self.dtype = torch.float32  # of what `forward` gives

    def giving(self, dtype: torch.dtype) -> "Preprocess":
        """The same, computing in another type: half precision loses nothing where pixels have `eight_digits`."""
        ready = copy.deepcopy(self)
        ready.dtype = dtype
        return ready

    def resize(self, image: NDArray[np.uint8]) -> Tensor:
        """(h, w, 3) uint8 RGB of any size -> (3, s, s) uint8, bilinear with antialiasing; channels last in memory."""
        # Pictures may come as read-only or negative-stride views, which torch refuses: these alone are copied.
        pixels = torch.from_numpy(np.require(image, requirements=("C", "W"))).permute(2, 0, 1)  # (3, h, w)
        with on_one_core():
            return self._squash(pixels.unsqueeze(0)).squeeze(0)

    def resize_mask(self, mask: NDArray[np.bool_]) -> Tensor:
        """(h, w) bool -> (s, s) bool, true where at least half of the pixel's area is.

        If no pixel has half of its area in the mask, as with a scratch, those with the largest share are true:
        what can be seen of a mask never vanishes. (What lies outside a centre crop cannot be seen.)
        """
        area = torch.from_numpy(mask.astype(np.uint8) * 255)[None, None]  # (1, 1, h, w)
        covered = self._squash(area)[0, 0] >= 128
        if covered.any() or not mask.any():
            return covered
        share = self._squash(area.float())[0, 0]  # not in whole steps: a speck's share would round to nothing
        return (share > 0) & (share >= share.max() * (1 - _ROUNDING))

    def _squash(self, pixels: Tensor) -> Tensor:
        side, edge = self.config.taken, self.config.squashed
        if pixels.shape[-2:] != (edge, edge):
            pixels = F.interpolate(pixels, (edge, edge), mode="bilinear", antialias=True, align_corners=False)
        margin = (edge - side) // 2
        inner = pixels[..., margin : margin + side, margin : margin + side]
        return inner.clone(memory_format=torch.channels_last)  # what was given stays the giver's

    def forward(self, batch: Tensor) -> Tensor:
        """(b, 3, s, s) in 0..255 -> the same shape, normalised per channel, in `dtype`, channels last in memory.

        The layout is for speed alone: on CPUs the convolutions of a backbone take half the time.
        """
        return _normalised(batch.to(self.dtype, memory_format=torch.channels_last), self.mean, self.std)


def _normalised(greys: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Of (b, 3, h, w) in 0..255, channels last, in its type; mean and std (3, 1, 1) are shares of 255."""
    rows = greys.permute(0, 2, 3, 1).flatten(2)  # (b, h, 3w): with constants as long, all of it is done in vectors
    scale, shift = (
        constant.flatten().to(greys.dtype).repeat(greys.shape[3]) for constant in (1 / (255 * std), -mean / std)
    )
    normal = torch.addcmul(shift, rows, scale)
    return normal.view(*greys.shape[:1], *greys.shape[2:], 3).permute(0, 3, 1, 2)


def covered_box(config: PreprocessConfig, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1), in pixels of a picture of `size` (height, width): the part the network sees."""
    height, width = size
    edge = config.squashed
    margin = (edge - config.taken) // 2
    low, high = margin / edge, (margin + config.taken) / edge
    return low * width, low * height, high * width, high * height


def locate(score_map: NDArray[np.float32], config: PreprocessConfig, size: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate a map (h', w') into a picture of `size` (height, width), bilinearly; float32.

    Where the network does not see the picture (outside a centre crop) the map's minimum is returned.
    No value exceeds the map's maximum.
    """
    height, width = size
    x0, y0, x1, y1 = covered_box(config, size)
    rows, seen_rows = _interpolation(height, y0, y1, score_map.shape[0])
    columns, seen_columns = _interpolation(width, x0, x1, score_map.shape[1])
    lowest, highest = score_map.min(), score_map.max()
    located: NDArray[np.float32] = rows @ score_map.astype(np.float32) @ columns.T
    np.clip(located, lowest, highest, out=located)  # weights that add up to one only nearly may exceed it
    located[~np.outer(seen_rows, seen_columns)] = lowest
    return located


def _interpolation(
    pixels: int, start: float, stop: float, samples: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """One axis of `locate`: a (pixels, samples) matrix of linear weights, and which pixels are seen."""
    share = (np.arange(pixels) + 0.5 - start) / (stop - start)
    position = np.clip(share * samples - 0.5, 0, samples - 1)
    left = np.minimum(position.astype(np.int64), max(samples - 2, 0))
    right = np.minimum(left + 1, samples - 1)
    weight = position - left
    matrix = np.zeros((pixels, samples), np.float32)
    index = np.arange(pixels)
    matrix[index, left] += (1 - weight).astype(np.float32)
    matrix[index, right] += weight.astype(np.float32)
    return matrix, (share >= 0) & (share <= 1)
