import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.errors import RecipeError
from models.preprocess import PreprocessConfig
from training import loop
from training.finetune import JigsawTask
from training.loop import Devices, Loss, has_converged, train
from training.progress import Progress
from training.recipe import JigsawSection, Schedule
from training.synthetic import Synthetic, Tiles
from training.textures import ProceduralTextures

QUIET = Progress.silent()
FIVE = Schedule(learning_rate=1e-2, batch_size=8, max_epochs=5, patience=5)


class Stopped(Exception):
    """The run is broken off."""


class Slope:
    """Which side of a slanted plane: 20 points, new noise in every epoch. Breaks off in epoch `stop`."""

    name = "slope"
    size = 20

    def __init__(self, *, stop: int | None = None) -> None:
        torch.manual_seed(3)
        self.module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1))
        self.trained = self.module
        self.stop = stop
        self.seen: list[tuple[int, list[int]]] = []
        self.modes = 0

    def prepare(self, indices: list[int], *, epoch: int) -> tuple[Tensor, Tensor]:
        self.seen.append((epoch, indices))
        rows = [np.random.default_rng([9, epoch, index]).normal(size=4) for index in indices]
        points = torch.tensor(np.array(rows), dtype=torch.float32)
        return points, (points.sum(1) > 0).float()

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Loss:
        points, side = batch
        if self.stop is not None and self.modes > self.stop:
            raise Stopped
        logits = module(points).squeeze(1)
        value = nn.functional.binary_cross_entropy_with_logits(logits, side)
        return Loss(value, ((logits > 0) == (side > 0)).float().mean())

    def parameters(self, learning_rate: float) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters()), "lr": learning_rate}]

    def set_modes(self) -> None:
        self.modes += 1
        self.module.train()


def run(task: Slope, checkpoint: Path, schedule: Schedule = FIVE, *, seed: int = 0) -> list[float]:
    return train(task, schedule, seed=seed, devices=Devices(), checkpoint=checkpoint, progress=QUIET)


def weights(task: Slope) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in task.module.state_dict().items()}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


@pytest.mark.parametrize(
    ("losses", "converged"),
    [
        ([], False),
        ([3.0, 3.0], False),  # not more than the patience
        ([3.0, 3.0, 3.0], True),
        ([3.0, 2.0, 2.5, 1.5], False),
        ([3.0, 2.0, 1.95, 1.92], True),  # 4 % in two epochs
        ([3.0, 2.0, 1.95, 1.85], False),
        ([3.0, 1.0, 2.0, 1.5], True),  # the best counts, not the last
        ([3.0, 2.0, 1.0, 1.97], False),  # the best is within the patience
    ],
)
def test_converged_is_no_gain_within_the_patience(losses: list[float], converged: bool) -> None:
    assert has_converged(losses, Schedule(patience=2, tolerance=0.05)) is converged


def test_training_lowers_the_loss_and_changes_the_module_in_place(tmp_path: Path) -> None:
    task = Slope()
    before = weights(task)
    losses = run(task, tmp_path / "slope.pt", Schedule(learning_rate=1e-2, batch_size=4, max_epochs=12, patience=12))
    assert len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]
    assert not torch.equal(task.module[0].weight, before["0.weight"])
    assert task.modes == 12


def test_it_stops_when_the_loss_has_converged(tmp_path: Path) -> None:
    schedule = Schedule(learning_rate=1e-12, batch_size=8, max_epochs=50, patience=2, tolerance=0.5)
    losses = run(Slope(), tmp_path / "slope.pt", schedule)
    assert len(losses) == 3
    assert has_converged(losses, schedule)


def test_every_epoch_sees_every_example_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    task = Slope()
    run(task, tmp_path / "slope.pt", Schedule(batch_size=8, max_epochs=2))
    orders = [[i for epoch, part in task.seen if epoch == e for i in part] for e in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(20))
    assert orders[0] != orders[1]
    assert [len(part) for _, part in task.seen] == [8, 8, 4] * 2


def test_the_loss_of_an_epoch_is_the_mean_over_its_examples(tmp_path: Path) -> None:
    task = Slope()
    task.module = nn.Sequential(nn.Linear(4, 1))
    task.module[0].weight.data.fill_(1.0)
    start = copy.deepcopy(task.module)
    (loss,) = run(task, tmp_path / "slope.pt", Schedule(learning_rate=1e-12, batch_size=8, max_epochs=1))
    every = task.prepare(list(range(20)), epoch=0)
    assert loss == pytest.approx(task.loss(start, every).value.item(), rel=1e-5)


def test_the_seed_decides_the_order(tmp_path: Path) -> None:
    one, same, other = Slope(), Slope(), Slope()
    assert run(one, tmp_path / "1.pt") == run(same, tmp_path / "2.pt")
    assert_same(weights(one), weights(same))
    run(other, tmp_path / "3.pt", seed=1)
    assert not torch.equal(one.module[0].weight, other.module[0].weight)


@pytest.mark.parametrize("epoch", [0, 1, 3, 4])
def test_a_run_that_was_broken_off_ends_as_one_that_was_not(tmp_path: Path, epoch: int) -> None:
    undisturbed = Slope()
    losses = run(undisturbed, tmp_path / "undisturbed.pt")
    broken, again = Slope(stop=epoch), Slope()
    with pytest.raises(Stopped):
        run(broken, tmp_path / "slope.pt")
    assert (tmp_path / "slope.pt").exists() == (epoch > 0)
    again.module[0].weight.data.zero_()  # the checkpoint decides, where there is one
    if epoch == 0:
        again = Slope()
    assert run(again, tmp_path / "slope.pt") == losses
    assert_same(weights(again), weights(undisturbed))
    assert {e for e, _ in again.seen} == set(range(epoch, 5))


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, second = Slope(), Slope()
    losses = run(first, tmp_path / "slope.pt")
    assert run(second, tmp_path / "slope.pt") == losses
    assert second.seen == []
    assert_same(weights(second), weights(first))


def test_breaking_off_while_the_checkpoint_is_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = Slope()
    losses = run(undisturbed, tmp_path / "undisturbed.pt")
    checkpoint = tmp_path / "slope.pt"
    real, saved = torch.save, []

    def half(state: object, file: object) -> None:
        if len(saved) == 2:
            file.write(b"PK\x03\x04 half of it")  # type: ignore[attr-defined]
            raise Stopped
        real(state, file)
        saved.append(1)

    monkeypatch.setattr(loop.torch, "save", half)
    with pytest.raises(Stopped):
        run(Slope(), checkpoint)
    monkeypatch.undo()
    assert len(torch.load(checkpoint, weights_only=True)["losses"]) == 2
    again = Slope()
    assert run(again, checkpoint) == losses
    assert_same(weights(again), weights(undisturbed))


def test_parameters_that_need_no_gradient_stay(tmp_path: Path) -> None:
    task = Slope()
    task.module[0].requires_grad_(False)
    before = weights(task)
    run(task, tmp_path / "slope.pt")
    assert torch.equal(task.module[0].weight, before["0.weight"])
    assert not torch.equal(task.module[3].weight, before["3.weight"])


def test_progress_is_told_of_each_epoch_and_of_those_behind(tmp_path: Path) -> None:
    progress = Progress.silent()
    train(Slope(), FIVE, seed=0, devices=Devices(), checkpoint=tmp_path / "s.pt", progress=progress)
    assert progress.seconds["slope"] > 0


def test_more_devices_than_a_batch_has_examples_are_refused(tmp_path: Path) -> None:
    schedule = Schedule(batch_size=1, max_epochs=1)
    with pytest.raises(RecipeError, match="batch_size"):
        train(Slope(), schedule, seed=0, devices=Devices("cpu", 2), checkpoint=tmp_path / "slope.pt", progress=QUIET)


class Pooled(nn.Module):
    """A small network with three levels and no batch norm, so that a batch may be split without a change."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 8, stride=8)
        self.third = nn.Conv2d(8, 256, 2, stride=2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.first(images).relu()
        return x, x, self.third(x)


class InSinglePrecision(JigsawTask):
    """In bfloat16 half a batch would be rounded otherwise than a whole one."""

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Loss:
        tiles, labels = batch
        logits = module(tiles)
        return Loss(nn.functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean())


def jigsaw_task() -> JigsawTask:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    tiles = Tiles(images, np.ones((6, 32, 32), np.bool_))
    return InSinglePrecision(
        Pooled(),  # type: ignore[arg-type]
        "resnet18",
        Synthetic(tiles, ProceduralTextures(), 0),
        preprocess=PreprocessConfig(image_size=32),
        section=JigsawSection(frozen_levels=0, tiles=2, permutations=4),
        pretrained=True,
    )


@pytest.mark.slow
def test_two_devices_train_as_one_and_bring_the_weights_back(tmp_path: Path) -> None:
    schedule = Schedule(learning_rate=1e-3, batch_size=4, max_epochs=2)
    one, two = jigsaw_task(), jigsaw_task()
    before = copy.deepcopy(two.module.state_dict())
    losses = {
        count: train(
            task,
            schedule,
            seed=0,
            devices=Devices("cpu", count),
            checkpoint=tmp_path / f"{count}.pt",
            progress=QUIET,
        )
        for count, task in ((1, one), (2, two))
    }
    assert losses[2] == pytest.approx(losses[1], rel=1e-4)
    for name, tensor in one.module.state_dict().items():
        assert torch.allclose(two.module.state_dict()[name], tensor, atol=1e-5), name
    assert not torch.equal(two.module[1].backbone.third.weight, before["1.backbone.third.weight"])
