"""Normalisation in whole numbers: what it loses in bfloat16, which is nothing, and what it changes, which is little."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.alignment import AlignmentConfig
from models.artifact import Artifact
from models.backbone import ARCHITECTURES, Architecture, Backbone
from models.detector import Detector, DetectorConfig, build_detector
from models.folding import normalised
from models.precision import round_to_stored
from models.preprocess import Preprocess, PreprocessConfig
from models.whole_numbers import in_whole_numbers, renormalise

IMAGENETS = PreprocessConfig(image_size=64)
WHOLE = in_whole_numbers(IMAGENETS)
CPU = torch.device("cpu")


def greys(b: int = 2) -> Tensor:
    drawn = torch.randint(0, 256, (b, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(b))
    return drawn.contiguous(memory_format=torch.channels_last)


def test_imagenets_become_the_nearest_whole_ones() -> None:
    assert [255 * each for each in WHOLE.mean] == [124, 116, 104]
    assert [255 * each for each in WHOLE.std] == [64, 64, 64]
    assert in_whole_numbers(WHOLE) == WHOLE
    assert WHOLE.model_copy(update={"mean": IMAGENETS.mean, "std": IMAGENETS.std}) == IMAGENETS


def test_bfloat16_holds_them() -> None:
    single, half = Preprocess(WHOLE)(greys()), Preprocess(WHOLE).giving(torch.bfloat16)(greys())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), single, rtol=0, atol=1e-6)
    step = 1 / 64
    torch.testing.assert_close(single / step, (single / step).round(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "holds"),
    [
        (WHOLE, True),
        (IMAGENETS, False),
        (WHOLE.model_copy(update={"align": AlignmentConfig(name="shift")}), False),  # between the pixels
        (in_whole_numbers(PreprocessConfig(mean=(0.5, 0.1, 1), std=(0.5, 0.01, 3))), True),
        (in_whole_numbers(PreprocessConfig(mean=(0, 0, 0), std=(1, 1, 1))), True),
        (in_whole_numbers(PreprocessConfig(mean=(-3, 0, 0))), False),
        (in_whole_numbers(PreprocessConfig(std=(1, 1e-5, 1))), False),
        (PreprocessConfig(std=(1e4, 1e4, 1e4)), False),
        (PreprocessConfig(mean=(0, 0.5, 1), std=(1 / 255, 1 / 255, 1 / 255)), False),
        (PreprocessConfig(mean=(0, 0.2, 1), std=(1 / 255, 1 / 255, 1 / 255)), True),
    ],
)
def test_it_is_known_whether_bfloat16_holds_them(config: PreprocessConfig, *, holds: bool) -> None:
    assert config.eight_digits == holds
    with torch.device("meta"):  # where artifacts are put together
        assert config.eight_digits == holds


@pytest.mark.parametrize("odd", [{"mean": (0.5, 0.5, 1.01)}, {"std": (1, 1, 5e-324)}, {"std": (1, 1, 1e300)}])
def test_what_is_far_from_any_grey_level_stays(odd: dict[str, tuple[float, float, float]]) -> None:
    config = PreprocessConfig(**odd)
    assert in_whole_numbers(config) is config


def test_float16_holds_them_too() -> None:
    for std in (2.0**-7 / 255, 2.0**14 / 255):
        config = PreprocessConfig(image_size=64, mean=(0, 0.2, 1), std=(std, std, std))
        assert config.eight_digits
        exact = (greys().double() - torch.tensor([0, 51, 255]).view(3, 1, 1)) / (255 * std)
        for dtype in (torch.bfloat16, torch.float16):
            assert torch.equal(Preprocess(config).giving(dtype)(greys()).double(), exact)


def test_a_backbone_that_is_shared_does_not_round_another_s_pixels(artifact: Artifact) -> None:
    exact, other = (detector("resnet18", config, artifact.manifest.detector) for config in (WHOLE, IMAGENETS))
    other.backbone = exact.for_scoring(CPU, torch.bfloat16).backbone
    with pytest.raises(ValueError, match="would round the pixels"):
        other.for_scoring(CPU, torch.bfloat16)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_backbone_gives_what_it_gave(make_backbone: Callable[[Architecture], Backbone], arch: Architecture) -> None:
    before, after = make_backbone(arch), make_backbone(arch)
    renormalise(after, IMAGENETS, WHOLE)
    outputs: list[Tensor] = []
    for network, config in ((before, IMAGENETS), (after, WHOLE)):
        conv, norm = normalised(network)[0]
        with torch.inference_mode():
            outputs.append(nn.Sequential(conv, norm)(Preprocess(config)(greys())))
    scale = float(outputs[0].abs().max())
    inner = slice(2, -2)  # away from the border, beyond which lies another mean
    apart = (outputs[0] - outputs[1]).abs() / scale
    assert float(apart[..., inner, inner].max()) < 1e-5
    assert 1e-6 < float(apart.max()) < 0.02
    renormalise(after, WHOLE, IMAGENETS)
    for name, tensor in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], tensor, rtol=1e-5, atol=1e-5)


def detector(arch: Architecture, preprocess: PreprocessConfig, like: DetectorConfig) -> Detector:
    torch.manual_seed(0)
    built = build_detector(like.model_copy(update={"arch": arch, "preprocess": preprocess})).eval()
    round_to_stored(built)
    return built


@pytest.mark.parametrize(
    ("arch", "preprocess", "dtype"),
    [
        ("resnet18", WHOLE, torch.bfloat16),
        ("wide_resnet50_2", WHOLE, torch.bfloat16),
        ("resnet18", IMAGENETS, torch.float32),
        ("resnet18", WHOLE.model_copy(update={"align": AlignmentConfig(name="shift")}), torch.float32),
        ("mobilenet_v2", WHOLE, torch.float32),  # whose stem goes on with what it has rounded
    ],
)
def test_a_stem_is_in_half_precision_where_nothing_is_rounded(
    arch: Architecture, preprocess: PreprocessConfig, dtype: torch.dtype, artifact: Artifact
) -> None:
    exact = detector(arch, preprocess, artifact.manifest.detector)
    half = exact.for_scoring(CPU, torch.bfloat16)
    assert half.backbone.stem_dtype == dtype
    single = exact.for_scoring(CPU, torch.float32)
    images = Preprocess(preprocess)(greys())
    with torch.inference_mode():
        wanted = single.backbone.stem(images)
        found = half.backbone.stem(half.preprocess(greys()) if preprocess.align is None else images)
    step = 2.0**-8 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(found.float(), wanted, rtol=step, atol=1e-5)
