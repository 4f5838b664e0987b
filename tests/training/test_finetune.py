import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from models.backbone import Backbone, build_backbone
from models.jigsaw import unshuffle
from models.preprocess import PreprocessConfig
from training.batch_norm import estimate_batch_norm
from training.finetune import JigsawTask, finetune
from training.loop import Devices, train
from training.progress import Progress
from training.recipe import JigsawSection, Schedule
from training.synthetic import Synthetic, Tiles
from training.textures import ProceduralTextures

SMALL = PreprocessConfig(image_size=64)
SECTION = JigsawSection(
    frozen_levels=0,
    blend=1.0,
    tiles=2,
    permutations=4,
    schedule=Schedule(learning_rate=3e-4, batch_size=8, max_epochs=4, patience=4),
)
BRIEF = SECTION.model_copy(update={"schedule": Schedule(learning_rate=3e-4, batch_size=8, max_epochs=1)})
STATISTICS = ("running_mean", "running_var")


@pytest.fixture
def backbone(part_backbone: Backbone) -> Backbone:
    """The same, to be changed."""
    return copy.deepcopy(part_backbone).requires_grad_(True).eval()


def source(tiles: Tiles) -> Synthetic:
    return Synthetic(tiles, ProceduralTextures(), 0)


def task(backbone: Backbone, tiles: Tiles, *, pretrained: bool = True) -> JigsawTask:
    return JigsawTask(backbone, "resnet18", source(tiles), preprocess=SMALL, section=SECTION, pretrained=pretrained)


def run(
    backbone: Backbone, tiles: Tiles, folder: Path, *, pretrained: bool, section: JigsawSection = BRIEF
) -> list[float]:
    torch.manual_seed(1)
    return finetune(
        backbone,
        "resnet18",
        source(tiles),
        preprocess=SMALL,
        section=section,
        pretrained=pretrained,
        devices=Devices(),
        checkpoint=folder / "jigsaw.pt",
        progress=Progress.silent(),
    )


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_jigsaw_is_learnt(backbone: Backbone, part_tiles: Tiles, tmp_path: Path, pretrained: bool) -> None:
    jigsaw = task(backbone, part_tiles, pretrained=pretrained)
    losses = train(
        jigsaw,
        SECTION.schedule,
        seed=0,
        devices=Devices(),
        checkpoint=tmp_path / "jigsaw.pt",
        progress=Progress.silent(),
    )
    assert losses[-1] < losses[0] / 2
    if not pretrained:  # trained with the statistics of the batch: examine it so, too
        jigsaw.module.train()
    with torch.no_grad():
        unseen = jigsaw.loss(jigsaw.module, jigsaw.prepare(list(range(jigsaw.size)), epoch=99))
    assert unseen.accuracy.item() > 0.6  # chance is 0.25


def test_a_pretrained_network_keeps_its_statistics_and_not_its_weights(
    backbone: Backbone, part_tiles: Tiles, tmp_path: Path
) -> None:
    before = copy.deepcopy(backbone.state_dict())
    losses = run(backbone, part_tiles, tmp_path, pretrained=True)
    assert len(losses) == 1
    parameters = {name for name, _ in backbone.named_parameters()}
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name]) is (name not in parameters), name
    assert any(name.endswith(STATISTICS) for name in before)


def test_a_network_from_nothing_gets_the_statistics_of_whole_good_tiles(
    backbone: Backbone, part_tiles: Tiles, tmp_path: Path
) -> None:
    before = copy.deepcopy(backbone.state_dict())
    run(backbone, part_tiles, tmp_path, pretrained=False)
    after = backbone.state_dict()
    assert not torch.equal(after["layer3.1.bn2.running_mean"], before["layer3.1.bn2.running_mean"])
    again = copy.deepcopy(backbone)
    estimate_batch_norm(again, [part_tiles.images], SMALL)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, after[name]), name


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_result_is_ready_for_use(backbone: Backbone, part_tiles: Tiles, tmp_path: Path, pretrained: bool) -> None:
    run(backbone, part_tiles, tmp_path, pretrained=pretrained)
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("levels", "frozen"), [(1, ("conv1", "bn1", "layer1")), (2, ("conv1", "bn1", "layer1", "layer2"))]
)
def test_the_layers_of_frozen_levels_stay(
    backbone: Backbone, part_tiles: Tiles, tmp_path: Path, levels: int, frozen: tuple[str, ...]
) -> None:
    before = copy.deepcopy(backbone.state_dict())
    section = BRIEF.model_copy(update={"frozen_levels": levels})
    run(backbone, part_tiles, tmp_path, pretrained=True, section=section)
    for name, parameter in backbone.named_parameters():
        assert torch.equal(parameter, before[name]) is name.startswith(frozen), name


def test_the_classifier_learns_at_a_rate_of_its_own(backbone: Backbone, part_tiles: Tiles) -> None:
    section = SECTION.model_copy(update={"frozen_levels": 2, "head_learning_rate": 0.5})
    jigsaw = JigsawTask(backbone, "resnet18", source(part_tiles), preprocess=SMALL, section=section, pretrained=True)
    tuned, head = jigsaw.parameters(0.25)
    assert (tuned["lr"], head["lr"]) == (0.25, 0.5)
    assert {id(p) for p in tuned["params"]} == {id(p) for p in backbone["layer3"].parameters()}
    everything = {id(p) for p in jigsaw.module.parameters()} - {id(p) for p in backbone.parameters()}
    assert {id(p) for p in head["params"]} == everything


def test_a_blend_lies_between_the_weights_before_and_after(
    backbone: Backbone, part_tiles: Tiles, tmp_path: Path
) -> None:
    before, blended = copy.deepcopy(backbone.state_dict()), copy.deepcopy(backbone)
    run(backbone, part_tiles, tmp_path / "whole", pretrained=True)
    section = BRIEF.model_copy(update={"blend": 0.25})
    run(blended, part_tiles, tmp_path / "blend", pretrained=True, section=section)
    for name, tuned in backbone.state_dict().items():
        if tuned.is_floating_point():
            expected = 0.75 * before[name] + 0.25 * tuned
            torch.testing.assert_close(blended.state_dict()[name], expected, rtol=1e-4, atol=1e-6)


def test_statistics_are_those_of_the_tiles_that_were_learnt_from(
    backbone: Backbone, part_tiles: Tiles, tmp_path: Path
) -> None:
    few = part_tiles.subset([3, 1, 8])
    run(backbone, few, tmp_path, pretrained=False)
    again = copy.deepcopy(backbone)
    estimate_batch_norm(again, [torch.cat(list(few.batches()))], SMALL)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, backbone.state_dict()[name]), name


def test_a_frozen_network_is_thawed(backbone: Backbone, part_tiles: Tiles, tmp_path: Path) -> None:
    before = backbone["conv1"].weight.clone()
    run(backbone.requires_grad_(False), part_tiles, tmp_path, pretrained=True)
    assert not torch.equal(backbone["conv1"].weight, before)


def test_examples_are_shuffled_by_the_order_that_is_to_be_named(backbone: Backbone, part_tiles: Tiles) -> None:
    jigsaw = task(backbone, part_tiles)
    indices = [7, 0, 3, 12]
    tiles, labels = jigsaw.prepare(indices, epoch=0)
    assert torch.equal(unshuffle(tiles, jigsaw.orders[labels]), part_tiles.images[indices])
    every = jigsaw.prepare(list(range(jigsaw.size)), epoch=0)[1]
    assert set(every.tolist()) == {0, 1, 2, 3}


def test_an_example_is_the_same_in_every_batch_and_another_in_every_epoch(
    backbone: Backbone, part_tiles: Tiles
) -> None:
    jigsaw = task(backbone, part_tiles)
    tiles, labels = jigsaw.prepare([20, 3, 29], epoch=1)
    (alone,), (label,) = jigsaw.prepare([29], epoch=1)
    assert torch.equal(alone, tiles[2])
    assert label == labels[2]
    assert not torch.equal(jigsaw.prepare([29], epoch=2)[0][0], alone)


def test_the_estimate_is_the_mean_and_variance_over_all_tiles(part_tiles: Tiles) -> None:
    torch.manual_seed(0)
    network = build_backbone("resnet18")
    estimate_batch_norm(network, [part_tiles.images], SMALL)
    normalised = (part_tiles.images / 255 - torch.tensor(SMALL.mean).view(3, 1, 1)) / torch.tensor(SMALL.std).view(
        3, 1, 1
    )
    with torch.no_grad():
        first = network["conv1"](normalised).transpose(0, 1).flatten(1)  # (c, all positions of all tiles)
    norm = network["bn1"]
    assert isinstance(norm, nn.BatchNorm2d)
    assert torch.allclose(norm.running_mean, first.mean(1), atol=1e-5)
    assert torch.allclose(norm.running_var, first.var(1), rtol=1e-4)
    assert norm.momentum == 0.1
    assert not norm.training
