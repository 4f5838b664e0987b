import copy

import pytest
import torch

from models.backbone import Backbone
from models.preprocess import PreprocessConfig
from training.finetune import JigsawTask
from training.half_precision import bfloat16_on_cpu, cpu_has_bfloat16
from training.recipe import JigsawSection
from training.synthetic import Synthetic, Tiles
from training.textures import ProceduralTextures


def test_products_are_half_precise_where_the_cpu_has_it_and_sums_are_not() -> None:
    a = torch.randn(4, 4)
    with bfloat16_on_cpu():
        assert (a @ a).dtype == (torch.bfloat16 if cpu_has_bfloat16() else torch.float32)
        assert (a + a).dtype == torch.float32
    assert (a @ a).dtype == torch.float32


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no bfloat16")
def test_a_jigsaws_gradients_in_half_precision_are_nearly_those_in_single(
    part_backbone: Backbone, part_tiles: Tiles
) -> None:
    source = Synthetic(part_tiles, ProceduralTextures(), 0)
    task = JigsawTask(
        copy.deepcopy(part_backbone),
        "resnet18",
        source,
        preprocess=PreprocessConfig(image_size=64),
        section=JigsawSection(frozen_levels=1, tiles=2, permutations=4),
        pretrained=True,
    )
    task.set_modes()
    tiles, labels = batch = task.prepare(list(range(16)), epoch=0)
    trained = [parameter for parameter in task.module.parameters() if parameter.requires_grad]
    half = torch.autograd.grad(task.loss(task.module, batch).value, trained)
    single = torch.autograd.grad(torch.nn.functional.cross_entropy(task.module(tiles), labels), trained)
    assert all(gradient.dtype == torch.float32 for gradient in half)
    ours, exact = (torch.cat([part.flatten() for part in gradients]) for gradients in (half, single))
    assert torch.cosine_similarity(ours, exact, dim=0) > 0.98
    assert 0 < (ours - exact).norm() < 0.2 * exact.norm()
