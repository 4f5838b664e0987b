import copy
from pathlib import Path

import pytest
import torch

from models.backbone import Backbone, channels, grids
from models.mfcsam import Fusion
from models.preprocess import PreprocessConfig
from training.fuse import FusionTask, train_fusion
from training.loop import Devices
from training.progress import Progress
from training.recipe import FusionSection, Schedule
from training.synthetic import Synthetic, Tiles
from training.textures import ProceduralTextures

SMALL = PreprocessConfig(image_size=64)
SECTION = FusionSection(schedule=Schedule(learning_rate=1e-3, batch_size=8, max_epochs=4, patience=4))


@pytest.fixture
def backbone(part_backbone: Backbone) -> Backbone:
    """The same, to be changed."""
    return copy.deepcopy(part_backbone).requires_grad_(True).train()


@pytest.fixture
def fusion() -> Fusion:
    torch.manual_seed(1)
    return Fusion(channels("resnet18"), grids(64))


def source(tiles: Tiles) -> Synthetic:
    return Synthetic(tiles, ProceduralTextures(), 0)


def test_training_changes_the_fusion_and_nothing_else(
    backbone: Backbone, fusion: Fusion, part_tiles: Tiles, tmp_path: Path
) -> None:
    frozen, before = copy.deepcopy(backbone.state_dict()), copy.deepcopy(fusion.state_dict())
    losses = train_fusion(
        fusion,
        backbone,
        "resnet18",
        source(part_tiles),
        preprocess=SMALL,
        section=SECTION,
        devices=Devices(),
        checkpoint=tmp_path / "fusion.pt",
        progress=Progress.silent(),
    )
    assert losses[-1] < 0.9 * losses[0]
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, frozen[name]), name
    after = fusion.state_dict()
    assert after.keys() == before.keys()  # no head
    # A bias of the keys adds the same to a whole row of the softmax: it has no gradient.
    learnt = {name for name, _ in fusion.named_parameters() if not name.endswith("key.bias")}
    assert learnt
    assert [name for name in sorted(learnt) if torch.equal(after[name], before[name])] == []
    assert not any(module.training for module in fusion.modules())
    assert not any(parameter.requires_grad for parameter in fusion.parameters())


def test_examples_are_tiles_with_their_masks(backbone: Backbone, fusion: Fusion, part_tiles: Tiles) -> None:
    task = FusionTask(fusion, backbone, "resnet18", source(part_tiles), preprocess=SMALL)
    tiles, masks = task.prepare([2, 18], epoch=0)
    assert torch.equal(tiles[0], part_tiles.images[2])
    assert masks.dtype == torch.bool  # a quarter of a float's bytes, as many times as batches lie ahead
    assert not masks[0].any()
    changed = (tiles[1] != part_tiles.images[2]).any(0)
    assert changed.any()
    assert bool(masks[1][changed].all())


def test_defects_count_as_much_as_the_rest_however_small_they_are(
    backbone: Backbone, fusion: Fusion, part_tiles: Tiles
) -> None:
    task = FusionTask(fusion, backbone, "resnet18", source(part_tiles), preprocess=SMALL)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:16, 8:16] = True  # 4 of 512 positions of the 16 x 16 grid

    def loss(on_defect: float, elsewhere: float) -> tuple[float, float]:
        logits = torch.full((2, 16, 16), elsewhere)
        logits[0, 2:4, 2:4] = on_defect
        value, accuracy = task.loss(lambda _tiles: logits, (part_tiles.images[:2], masks))  # type: ignore[arg-type]
        return value.item(), accuracy.item()

    assert loss(50.0, -50.0) == pytest.approx((0.0, 1.0), abs=1e-6)
    assert loss(-50.0, -50.0) == pytest.approx((25.0, 0.5), rel=1e-4)
    assert loss(50.0, 50.0) == pytest.approx((25.0, 0.5), rel=1e-4)


def test_a_batch_without_a_defect_has_a_loss_and_the_backbone_is_frozen(
    backbone: Backbone, fusion: Fusion, part_tiles: Tiles
) -> None:
    task = FusionTask(fusion, backbone, "resnet18", source(part_tiles), preprocess=SMALL)
    # Several devices wait for the gradient of everything that asks for one.
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    value, accuracy = task.loss(task.module, task.prepare([0, 1], epoch=0))
    assert torch.isfinite(value)
    assert 0 <= accuracy.item() <= 1
