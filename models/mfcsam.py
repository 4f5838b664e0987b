"""MFCSAM, the multi-scale frequency channel attention, and the fusion Y1, Y2, Y3 (seed, step 5.1, claim 7).

Owns the attention modules and the joining of three levels to one grid; knows nothing of how they are trained.
The seed's formulas are lost; chosen here and not written there: the number of frequencies, the groups of the
wide convolutions, the order of P and K, and that no residual is added (`E` is the output, as in the text).
Every module can be built on the meta device, and all that it needs is in its state dict.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Grids, Levels

_FREQUENCIES = 16  # as many as FcaNet found best
_REDUCTION = 16
_KERNELS = (3, 5, 7, 9)  # k_i = 2(i+1)+1, i = 0..3
_GROUPS = (1, 4, 8, 16)  # EPSANet's, a kernel each
_HEAD_MULTIPLE = 8  # CUDA's attention kernels that keep no map want a multiple of this many channels


def zigzag(count: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """The `count` lowest (vertical, horizontal) frequencies of an h x w grid, in JPEG's zig-zag order."""
    every = [(u, v) for u in range(size[0]) for v in range(size[1])]
    every.sort(key=lambda uv: (sum(uv), uv[0] if sum(uv) % 2 else uv[1]))
    return every[:count]


def dct_basis(frequencies: Sequence[tuple[int, int]], size: tuple[int, int]) -> Tensor:
    """2-D DCT-II bases, (len(frequencies), h, w) float32: cos(πu(i+½)/h)·cos(πv(j+½)/w) / (h·w).

    Divided by the number of positions, so that frequency (0, 0) is exactly the mean.
    """
    h, w = size
    u, v = torch.tensor(frequencies, dtype=torch.float64).unbind(dim=1)
    rows = (torch.arange(h, dtype=torch.float64) + 0.5) * (math.pi / h)
    columns = (torch.arange(w, dtype=torch.float64) + 0.5) * (math.pi / w)
    basis = (u[:, None] * rows).cos()[:, :, None] * (v[:, None] * columns).cos()[:, None, :]
    return (basis / (h * w)).float()


class FrequencyChannelAttention(nn.Module):
    """FcaNet's channel attention: pool each channel with one DCT basis, squeeze, excite, gate.

    The channels are split into gcd(channels, 16) consecutive groups, half as many while the grid has fewer
    frequencies; group g is pooled with the g-th lowest frequency in zig-zag order. The gate's MLP narrows
    to channels/16, at least 4.
    """

    basis: Tensor  # (groups, h, w)

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        groups = math.gcd(channels, _FREQUENCIES)
        while groups > size[0] * size[1]:
            groups //= 2
        self.size = (size[0], size[1])
        # Persistent, though it could be computed again: the artifact then holds every number of the detector.
        self.register_buffer("basis", dct_basis(zigzag(groups, size), size))
        hidden = max(4, channels // _REDUCTION)
        self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same, each channel times its gate in (0, 1)."""
        if x.shape[-2:] != self.size:
            raise ValueError(f"built for a grid of {self.size}, given {tuple(x.shape[-2:])}")
        b, c, h, w = x.shape
        grouped = x.reshape(b, len(self.basis), -1, h, w)  # (b, g, c/g, h, w)
        pooled = torch.einsum("bgchw,ghw->bgc", grouped, self.basis).reshape(b, c)
        gate: Tensor = self.gate(pooled)
        return x * gate[:, :, None, None]


class PositionAttention(nn.Module):
    """DANet's attention over positions: S = softmax(PᵀK), E = V·Sᵀ.

    P, K, V are (c, p): 1x1 convolutions, all `channels` wide as the seed says. (PᵀK)_ij = P_i·K_j; the
    softmax is over each row, over j, so (V·Sᵀ)_i = Σ_j S_ij·V_j: P is the query, K the key. Unscaled, as the
    formula is. (DANet writes s_ji for our S_ij; that is the same map.)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels, 1)  # P
        self.key = nn.Conv2d(channels, channels, 1)  # K
        self.value = nn.Conv2d(channels, channels, 1)  # V

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        p, k, v = (_as_head(projection(x)) for projection in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(p, k, v, scale=1.0)  # (b, 1, p, c'), never the (p, p) map
        channels_first = attended[:, 0, :, : x.shape[1]].transpose(1, 2)  # (b, c, p), a view: channels stay last
        return channels_first.view(x.shape)


def _as_head(x: Tensor) -> Tensor:
    """(b, c, h, w) -> one attention head (b, 1, p, c'), zero channels added up to a multiple of 8.

    Zero channels change no dot product. Without them on CUDA, and anywhere unless a position's channels lie
    side by side in memory, torch falls back in silence to a kernel that stores the whole map.
    """
    head = x.flatten(2).transpose(1, 2).unsqueeze(1)
    return F.pad(head, (0, -head.shape[-1] % _HEAD_MULTIPLE)).contiguous()


def _to_channels_last(module: nn.Module, _: object = None) -> None:
    """Lay the weights as the backbone lays its levels; else CPUs turn them at every call (benchmarks/fusion.py)."""
    module.to(memory_format=torch.channels_last)


class MFCSAM(nn.Module):
    """Four receptive fields, each through frequency channel and position attention, joined again.

    Convolutions of kernel 3, 5, 7, 9, each to channels/4, in 1, 4, 8, 16 groups (EPSANet's pyramid), or the
    greatest common divisor of that and channels/4.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        if channels % len(_KERNELS):
            raise ValueError(f"MFCSAM splits its channels in four; {channels} is not divisible by 4")
        width = channels // len(_KERNELS)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, width, kernel, padding=kernel // 2, groups=math.gcd(groups, width), bias=False),
                FrequencyChannelAttention(width, size),
                PositionAttention(width),
            )
            for kernel, groups in zip(_KERNELS, _GROUPS, strict=True)
        )
        _to_channels_last(self)
        self.register_load_state_dict_post_hook(_to_channels_last)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Fusion(nn.Module):
    """Y1 = Conv1x1(X1) + MFCSAM(X1), Y2 = X2, Y3 = MFCSAM(X3); shapes stay as they are.

    `channels` and `sizes` (height, width) are those of the three levels; the second level's are taken so that
    callers pass what the backbone says, though nothing is built for it.
    """

    def __init__(self, channels: tuple[int, int, int], sizes: Grids) -> None:
        super().__init__()
        self.direct1 = nn.Conv2d(channels[0], channels[0], 1)
        self.mfcsam1 = MFCSAM(channels[0], sizes[0])
        self.mfcsam3 = MFCSAM(channels[2], sizes[2])

    def forward(self, x1: Tensor, x2: Tensor, x3: Tensor) -> Levels:
        """Levels (b, c_i, h_i, w_i) -> levels of the same shapes."""
        return self.direct1(x1) + self.mfcsam1(x1), x2, self.mfcsam3(x3)


class ResidualFusion(nn.Module):
    """Y1 = X1, Y2 = X2, Y3 = X3 + g·MFCSAM(X3), a gain g per channel that starts at -1.

    Ours, not the source's. There MFCSAM replaces the third level by averages over positions, and detail is lost with
    it; here it is what the third level has beyond what the rest of the picture lets expect. The first level stays as it
    is, which spares the attention over its many positions. docs/log.md has what other forms were worth.
    """

    def __init__(self, channels: tuple[int, int, int], sizes: Grids) -> None:
        super().__init__()
        self.mfcsam3 = MFCSAM(channels[2], sizes[2])
        self.gain3 = nn.Parameter(torch.full((channels[2], 1, 1), -1.0))

    def forward(self, x1: Tensor, x2: Tensor, x3: Tensor) -> Levels:
        """Levels (b, c_i, h_i, w_i) -> levels of the same shapes."""
        return x1, x2, x3 + self.gain3 * self.mfcsam3(x3)


AnyFusion = Fusion | ResidualFusion


def concatenate(levels: Sequence[Tensor]) -> Tensor:
    """Join levels on the first one's grid: [(b, c_i, h_i, w_i)] -> (b, d, h_1, w_1), d = Σ c_i.

    Y of step 5.1 from (Y1, Y2, Y3); PaDiM's embedding from (X1, X2, X3). Bilinear, pixel centres
    (align_corners=False); the first level is passed through untouched.
    """
    first, *rest = levels
    size = list(first.shape[-2:])
    upsampled = [
        F.interpolate(level, size=size, mode="bilinear", align_corners=False)
        for level in rest
        if level.shape[1]  # a channel selection may leave a level empty, and torch refuses to upsample that
    ]
    return torch.cat([first, *upsampled], dim=1)
