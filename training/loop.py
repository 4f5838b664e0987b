"""The training loop that the jigsaw and the fusion share: Adam until the loss has converged.

On Lightning Fabric: mixed precision on CUDA, several devices by spawning. After each epoch everything that
the next one depends on goes into a checkpoint, whole or not at all, and all randomness is a function of
(seed, epoch, index), so that a run that was killed ends in the same bytes as one that was not.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from models.errors import RecipeError
from models.precision import Precision
from training.progress import Progress
from training.recipe import Schedule

_AHEAD = 3  # batches prepared while the device works on one


class Loss(NamedTuple):
    """`value` is the mean loss of a batch; `accuracy` in [0, 1] is for people."""

    value: Tensor
    accuracy: Tensor


class Task(Protocol):
    """What is trained. `size` is the number of examples in an epoch."""

    name: str
    size: int

    @property
    def module(self) -> nn.Module:
        """What computes the loss."""
        ...

    @property
    def trained(self) -> nn.Module:
        """The part of `module` that changes: what a checkpoint holds."""
        ...

    def prepare(self, indices: list[int], *, epoch: int) -> tuple[Tensor, ...]:
        """The examples of a batch, on the CPU; a pure function of its arguments."""
        ...

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Loss:
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
    optimizer = torch.optim.Adam(task.parameters(schedule.learning_rate))
    module, wrapped = fabric.setup(task.module, optimizer)
    losses: list[float] = []
    if checkpoint.exists():  # after setup: the optimizer's state follows the weights to their device
        state = _load(checkpoint)
        task.trained.load_state_dict(state["trained"])
        optimizer.load_state_dict(state["optimizer"])
        losses = list(state["losses"])
    watched = progress or Progress.silent()
    with watched.step(task.name, schedule.max_epochs, done=len(losses)) as step:
        while len(losses) < schedule.max_epochs and not has_converged(losses, schedule):
            task.set_modes()
            loss, accuracy = _one_epoch(fabric, task, module, wrapped, schedule.batch_size, seed, len(losses))
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


def _one_epoch(
    fabric: Fabric, task: Task, module: nn.Module, optimizer: Any, batch_size: int, seed: int, epoch: int
) -> tuple[float, float]:
    order = np.random.default_rng([seed, epoch]).permutation(task.size).tolist()
    totals = torch.zeros(3, device=fabric.device)
    for batch in _prepared(task, order, batch_size, epoch, rank=fabric.global_rank, world=fabric.world_size):
        moved = tuple(part.to(fabric.device) for part in batch)
        loss = task.loss(module, moved)
        optimizer.zero_grad()
        fabric.backward(loss.value)
        optimizer.step()
        size = len(moved[0])
        totals += torch.stack([loss.value.detach() * size, loss.accuracy.detach() * size, totals.new_tensor(size)])
    loss_sum, accuracy_sum, count = torch.as_tensor(fabric.all_reduce(totals, reduce_op="sum")).tolist()
    return loss_sum / count, accuracy_sum / count


def _prepared(
    task: Task, order: list[int], batch_size: int, epoch: int, *, rank: int, world: int
) -> Iterator[tuple[Tensor, ...]]:
    """This process's share of every batch, prepared ahead by a thread while the device works."""
    whole = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    shares = [batch[rank : len(batch) - len(batch) % world : world] for batch in whole]
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: deque = deque()
        for share in (s for s in shares if s):
            waiting.append(pool.submit(task.prepare, share, epoch=epoch))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


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
