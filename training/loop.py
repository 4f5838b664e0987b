"""The training loop that the jigsaw and the fusion share: Adam until the loss has converged.

On Lightning Fabric: mixed precision on CUDA, several devices by spawning. After each epoch everything that
the next one depends on goes into a checkpoint, whole or not at all, and all randomness is a function of
(seed, epoch, index), so that a run that was killed ends in the same bytes as one that was not.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from models.errors import RecipeError
from models.precision import Precision
from training.feed import Batch, Feed, Share, Source
from training.progress import Progress
from training.recipe import Schedule


class Loss(NamedTuple):
    """`value` is the mean loss of a batch; `accuracy` in [0, 1] is for people."""

    value: Tensor
    accuracy: Tensor


class Task(Source, Protocol):
    """What is trained."""

    name: str

    @property
    def module(self) -> nn.Module:
        """What computes the loss."""
        ...

    @property
    def trained(self) -> nn.Module:
        """The part of `module` that changes: what a checkpoint holds."""
        ...

    def loss(self, module: nn.Module, batch: Batch) -> Loss:
        """The loss of `module`, which may wrap the task's own, on a prepared batch."""
        ...

    def parameters(self, learning_rate: float) -> list[dict[str, Any]]:
        """What changes, in groups as torch's optimizers take them, each with its learning rate."""
        ...

    def set_modes(self) -> None:
        """Put the parts of `module` into train or eval mode before each epoch."""
        ...


@dataclass(frozen=True)
class Devices:
    """Where to train: `accelerator` "cpu" or "cuda", and how many devices of it.

    `precision` is that of the features that scorers are fitted to.
    """

    accelerator: str = "cpu"
    count: int = 1
    precision: Precision = "auto"

    def fabric(self) -> Fabric:
        """One process a device; float32 on the CPU, bfloat16 mixed precision on CUDA."""
        return Fabric(
            accelerator=self.accelerator,
            devices=self.count,
            strategy="ddp_spawn" if self.count > 1 else "auto",
            precision="bf16-mixed" if self.accelerator == "cuda" else "32-true",
        )


def train(
    task: Task, schedule: Schedule, *, seed: int, devices: Devices, checkpoint: Path, progress: Progress
) -> list[float]:
    """Train `task.module` in place from its present weights, or from `checkpoint` where that exists.

    Returns the mean loss of each epoch. The checkpoint stays; whoever called removes it.
    Raises RecipeError if a batch cannot be shared among the devices.
    """
    if min(schedule.batch_size, task.size) < devices.count:
        raise RecipeError(
            f"{task.name}: a batch of {min(schedule.batch_size, task.size)} examples cannot be shared among "
            f"{devices.count} devices. Use fewer devices, or raise batch_size."
        )
    fabric = devices.fabric()
    if devices.count > 1:
        # Only the checkpoint comes back from spawned processes, and a progress bar cannot be sent to them.
        fabric.launch(partial(_epochs, task=task, schedule=schedule, seed=seed, checkpoint=checkpoint, progress=None))
    else:
        _epochs(fabric, task=task, schedule=schedule, seed=seed, checkpoint=checkpoint, progress=progress)
    state = _load(checkpoint)
    task.trained.load_state_dict(state["trained"])
    return list(state["losses"])


def _epochs(
    fabric: Fabric, *, task: Task, schedule: Schedule, seed: int, checkpoint: Path, progress: Progress | None
) -> None:
    if fabric.world_size > 1:
        _unshare(task.module)
    task.module.to(memory_format=torch.channels_last)  # as the pictures are: no convolution has to turn either
    optimizer = torch.optim.Adam(task.parameters(schedule.learning_rate), fused=True)
    module, wrapped = fabric.setup(task.module, optimizer)
    losses: list[float] = []
    if checkpoint.exists():  # after setup: the optimizer's state follows the weights to their device
        state = _load(checkpoint)
        task.trained.load_state_dict(state["trained"])
        optimizer.load_state_dict(state["optimizer"])
        losses = list(state["losses"])
    watched = progress or Progress.silent()
    feed = Feed(
        task,
        batch_size=schedule.batch_size,
        seed=seed,
        epochs=range(len(losses), schedule.max_epochs),
        share=Share(fabric.global_rank, fabric.world_size),
        pinned=fabric.device.type == "cuda",
    )
    with feed, watched.step(task.name, schedule.max_epochs, done=len(losses)) as step:
        while len(losses) < schedule.max_epochs and not has_converged(losses, schedule):
            task.set_modes()
            loss, accuracy = _one_epoch(fabric, task, module, wrapped, feed.epoch(len(losses)))
            losses.append(loss)
            if fabric.is_global_zero:
                _save(checkpoint, {"trained": task.trained, "optimizer": optimizer, "losses": losses})
            fabric.barrier()
            step.advance(f"loss {loss:.4f}, accuracy {accuracy:.0%}")


def _unshare(module: nn.Module) -> None:
    """Give this process weights of its own: spawning leaves those on the CPU in memory that all processes share."""
    for tensor in chain(module.parameters(), module.buffers()):
        tensor.data = tensor.data.clone()


def has_converged(losses: list[float], schedule: Schedule) -> bool:
    """Whether the best loss has not fallen by `tolerance` (relative) in the last `patience` epochs."""
    if len(losses) <= schedule.patience:
        return False
    before = min(losses[: -schedule.patience])
    return min(losses[-schedule.patience :]) > before * (1 - schedule.tolerance)


def _one_epoch(fabric: Fabric, task: Task, module: nn.Module, optimizer: Any, batches: Iterable[Batch]) -> list[float]:
    """The means of loss and accuracy over the examples of all processes."""
    sums, count = torch.zeros(2, device=fabric.device), 0
    for batch in batches:
        moved = tuple(part.to(fabric.device, non_blocking=True) for part in batch)
        loss = task.loss(module, moved)
        optimizer.zero_grad()
        fabric.backward(loss.value)
        optimizer.step()
        sums += torch.stack([loss.value.detach(), loss.accuracy.detach()]) * len(batch[0])
        count += len(batch[0])
    totals = torch.as_tensor(fabric.all_reduce(torch.cat([sums, sums.new_tensor([count])]), reduce_op="sum"))
    return (totals[:2] / totals[2]).tolist()


def _save(path: Path, parts: dict[str, Any]) -> None:
    state = {name: part.state_dict() if hasattr(part, "state_dict") else part for name, part in parts.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_suffix(".incoming")
    try:
        with incoming.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
        incoming.unlink(missing_ok=True)
        raise RecipeError(
            f"The checkpoint {path} cannot be written ({error}). Make room on that disk, or give another folder "
            "with --artifacts; the same command then goes on from the last epoch that was kept."
        ) from error
    incoming.replace(path)


def _load(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))
