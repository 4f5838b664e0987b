"""MFCSAM and fusion against references written from the formulas with explicit loops, in float64."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.mfcsam import (
    MFCSAM,
    FrequencyChannelAttention,
    Fusion,
    PositionAttention,
    concatenate,
    dct_basis,
    zigzag,
)

CHANNELS = (16, 8, 32)
SIZES = ((8, 6), (4, 3), (2, 2))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def levels(b: int = 2, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    x1, x2, x3 = (torch.randn(b, c, *size, dtype=dtype) for c, size in zip(CHANNELS, SIZES, strict=True))
    return x1, x2, x3


def naive_conv(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Grouped convolution of odd kernel, zero padded, as the sum that defines it."""
    b, _, h, w = x.shape
    out = torch.zeros(b, conv.out_channels, h, w, dtype=x.dtype)
    ins, outs = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    reach = conv.kernel_size[0] // 2
    for o in range(conv.out_channels):
        first = (o // outs) * ins
        for i in range(h):
            for j in range(w):
                total = torch.zeros(b, dtype=x.dtype)
                for di in range(-reach, reach + 1):
                    for dj in range(-reach, reach + 1):
                        if 0 <= i + di < h and 0 <= j + dj < w:
                            seen = x[:, first : first + ins, i + di, j + dj]
                            total = total + seen @ conv.weight[o, :, di + reach, dj + reach]
                out[:, o, i, j] = total + (0 if conv.bias is None else conv.bias[o])
    return out


def naive_channel_attention(x: Tensor, module: FrequencyChannelAttention) -> Tensor:
    b, c, h, w = x.shape
    order = [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0)]
    order = [(u, v) for u, v in order if u < h and v < w]
    groups = len(module.basis)
    pooled = torch.zeros(b, c, dtype=x.dtype)
    for channel in range(c):
        u, v = order[channel // (c // groups)]
        for i in range(h):
            for j in range(w):
                wave = math.cos(math.pi * u * (i + 0.5) / h) * math.cos(math.pi * v * (j + 0.5) / w)
                pooled[:, channel] += x[:, channel, i, j] * wave / (h * w)
    narrow, wide = module.gate[0], module.gate[2]
    hidden = (pooled @ narrow.weight.T + narrow.bias).clamp(min=0)
    gate = 1 / (1 + (-(hidden @ wide.weight.T + wide.bias)).exp())
    return x * gate[:, :, None, None]


def naive_position_attention(x: Tensor, module: PositionAttention) -> Tensor:
    """S = softmax(PᵀK), E = V Sᵀ, with the map written out."""
    result = []
    for image in x:
        p, k, v = (
            conv.weight[:, :, 0, 0] @ image.flatten(1) + conv.bias[:, None]
            for conv in (module.query, module.key, module.value)
        )  # (c, p)
        energy = p.T @ k
        s = energy.exp() / energy.exp().sum(dim=1, keepdim=True)
        result.append((v @ s.T).reshape(image.shape))
    return torch.stack(result)


def naive_mfcsam(x: Tensor, module: MFCSAM) -> Tensor:
    parts = []
    for branch in module.branches:
        conv, channel, position = branch
        gated = naive_channel_attention(naive_conv(x, conv), channel)
        parts.append(naive_position_attention(gated, position))
    return torch.cat(parts, dim=1)


def exact_basis(module: nn.Module) -> nn.Module:
    """The module in float64, its bases not rounded to float32 on the way."""
    module.double()
    for part in module.modules():
        if isinstance(part, FrequencyChannelAttention):
            h, w = part.size
            assert torch.equal(dct_basis(zigzag(len(part.basis), part.size), part.size).double(), part.basis)
            rows = (torch.arange(h, dtype=torch.float64) + 0.5) * math.pi / h
            columns = (torch.arange(w, dtype=torch.float64) + 0.5) * math.pi / w
            frequencies = zigzag(len(part.basis), part.size)
            waves = [torch.outer((u * rows).cos(), (v * columns).cos()) for u, v in frequencies]
            part.basis.copy_(torch.stack(waves) / (h * w))
    return module


def test_zigzag_starts_as_in_jpeg() -> None:
    assert zigzag(6, (8, 8)) == [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2)]
    assert zigzag(4, (1, 4)) == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_bases_are_orthogonal_and_the_first_is_the_mean() -> None:
    basis = dct_basis(zigzag(16, (14, 12)), (14, 12))
    flat = basis.flatten(1).double()
    products = flat @ flat.T
    assert torch.allclose(products, products.diagonal().diag(), atol=1e-8)
    x = torch.rand(14, 12)
    assert torch.allclose((x * basis[0]).sum(), x.mean())


@pytest.mark.parametrize(("channels", "groups"), [(4, 4), (8, 8), (6, 2)])
def test_channel_attention_is_the_formula(channels: int, groups: int) -> None:
    module = exact_basis(FrequencyChannelAttention(channels, (5, 4)))
    assert len(module.basis) == groups
    x = torch.randn(2, channels, 5, 4, dtype=torch.float64)
    assert torch.allclose(module(x), naive_channel_attention(x, module), rtol=1e-10)


def test_channel_attention_has_no_more_groups_than_frequencies() -> None:
    for size, groups in (((2, 2), 4), ((3, 3), 8), ((1, 1), 1)):
        module = FrequencyChannelAttention(64, size)
        assert module.basis.shape == (groups, *size)
        assert module(torch.randn(1, 64, *size)).shape == (1, 64, *size)


def test_channel_attention_refuses_another_grid() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        FrequencyChannelAttention(8, (4, 4))(torch.zeros(1, 8, 5, 4))


@pytest.mark.parametrize("channels", [4, 6, 8])
def test_position_attention_is_the_formula(channels: int) -> None:
    module = PositionAttention(channels).double()
    x = torch.randn(2, channels, 5, 4, dtype=torch.float64)
    assert torch.allclose(module(x), naive_position_attention(x, module), rtol=1e-10)


@pytest.mark.parametrize("channels", [6, 64])
def test_position_attention_keeps_no_map(channels: int) -> None:
    # The flash kernel works in tiles; asked for alone, it raises where it cannot run.
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        out = PositionAttention(channels)(torch.randn(1, channels, 20, 20))
    out.sum().backward()
    assert out.shape == (1, channels, 20, 20)


def test_mfcsam_is_the_formula() -> None:
    module = exact_basis(MFCSAM(16, (5, 4)))
    x = torch.randn(2, 16, 5, 4, dtype=torch.float64)
    assert torch.allclose(module(x), naive_mfcsam(x, module), rtol=1e-10)


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(256, [1, 4, 8, 16]), (1024, [1, 4, 8, 16]), (24, [1, 2, 2, 2]), (32, [1, 4, 8, 8])],
)
def test_branches_have_the_kernels_and_the_groups_that_divide(channels: int, groups: list[int]) -> None:
    with torch.device("meta"):
        convolutions = [branch[0] for branch in MFCSAM(channels, (14, 14)).branches]
    assert [conv.kernel_size for conv in convolutions] == [(3, 3), (5, 5), (7, 7), (9, 9)]
    assert [conv.groups for conv in convolutions] == groups
    assert {conv.out_channels for conv in convolutions} == {channels // 4}


def test_mfcsam_refuses_channels_that_do_not_split_in_four() -> None:
    with pytest.raises(ValueError, match="18 is not divisible by 4"):
        MFCSAM(18, (4, 4))


def test_fusion_is_the_formula() -> None:
    fusion = exact_basis(Fusion(CHANNELS, SIZES))
    x1, x2, x3 = levels(dtype=torch.float64)
    y1, y2, y3 = fusion(x1, x2, x3)
    assert torch.allclose(y1, naive_conv(x1, fusion.direct1) + naive_mfcsam(x1, fusion.mfcsam1), rtol=1e-10)
    assert torch.equal(y2, x2)
    assert torch.allclose(y3, naive_mfcsam(x3, fusion.mfcsam3), rtol=1e-10)


def test_every_weight_of_the_fusion_gets_a_gradient() -> None:
    fusion = Fusion(CHANNELS, SIZES)
    concatenate(fusion(*levels())).square().sum().backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A key's bias shifts a whole row of the map alike, so its gradient is zero by the formula.
        assert name.endswith("key.bias") or parameter.grad.abs().max() > 0, name


def test_an_image_alone_is_fused_as_in_a_batch() -> None:
    fusion = Fusion(CHANNELS, SIZES).eval()
    x = levels(b=3)
    together = fusion(*x)
    alone = fusion(*(level[1:2] for level in x))
    for a, b in zip(alone, together, strict=True):
        assert torch.allclose(a[0], b[1], rtol=1e-5, atol=1e-6)


def test_fusion_built_on_meta_takes_everything_from_a_state_dict() -> None:
    fitted = Fusion(CHANNELS, SIZES)
    with torch.device("meta"):
        empty = Fusion(CHANNELS, SIZES)
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    assert any(name.endswith("basis") for name in empty.state_dict())
    empty.load_state_dict(fitted.state_dict(), assign=True)
    x = levels()
    for a, b in zip(empty(*x), fitted(*x), strict=True):
        assert torch.equal(a, b)


def naive_bilinear(level: Tensor, size: tuple[int, int]) -> Tensor:
    """Half-pixel centres, clamped at the border: one output pixel at a time."""
    (h, w), (high, wide) = level.shape[-2:], size
    out = torch.zeros(*level.shape[:2], high, wide, dtype=level.dtype)
    for i in range(high):
        for j in range(wide):
            y, x = max((i + 0.5) * h / high - 0.5, 0), max((j + 0.5) * w / wide - 0.5, 0)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            upper = level[..., top, left] * (1 - (x - left)) + level[..., top, right] * (x - left)
            lower = level[..., bottom, left] * (1 - (x - left)) + level[..., bottom, right] * (x - left)
            out[..., i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return out


def test_concatenation_upsamples_to_the_first_level() -> None:
    x1, x2, x3 = levels(dtype=torch.float64)
    joined = concatenate((x1, x2, x3))
    expected = torch.cat([x1, naive_bilinear(x2, SIZES[0]), naive_bilinear(x3, SIZES[0])], dim=1)
    assert joined.shape == (2, sum(CHANNELS), *SIZES[0])
    assert torch.allclose(joined, expected, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mfcsam_gives_the_same_for_either_layout_of_its_input(layout: torch.memory_format) -> None:
    module = MFCSAM(16, (8, 6)).double().eval()
    x = torch.randn(2, 16, 8, 6, dtype=torch.float64)
    expected = torch.cat(
        [
            naive_position_attention(naive_channel_attention(naive_conv(x, branch[0]), branch[1]), branch[2])
            for branch in module.branches
        ],
        dim=1,
    )
    found = module(x.contiguous(memory_format=layout))
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("assign", [False, True])  # True: as artifacts are loaded
def test_what_channels_last_gives_is_channels_last_also_after_weights_were_loaded(assign: bool) -> None:
    module, other = MFCSAM(16, (8, 6)), MFCSAM(16, (8, 6))
    module.load_state_dict({name: each.contiguous() for name, each in other.state_dict().items()}, assign=assign)
    x = torch.randn(2, 16, 8, 6).contiguous(memory_format=torch.channels_last)
    assert module(x).is_contiguous(memory_format=torch.channels_last)
    for branch in module.branches:
        assert branch[0].weight.is_contiguous(memory_format=torch.channels_last)
        assert not branch[0].weight.is_contiguous()
