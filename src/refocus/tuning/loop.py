"""The parts of the training loop: the images of a step, one pass over them, the validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from refocus.data.transforms import MaskedImages, joint_transform
from refocus.errors import InputError
from refocus.objectives.registry import Step
from refocus.processes import workers_for
from refocus.progress import track
from refocus.records import Sample
from refocus.tuning.recipe import Recipe
from refocus.tuning.trainable import restrict
from refocus.vit.loading import pick_device


class Diverged(InputError):  # noqa: N818 - says what happened, as people catch it
    """A loss term became NaN or infinite; the last good checkpoint is kept."""


class Batches(Sampler[list[int]]):
    """The batches of one process.

    The order of an epoch follows from (seed, epoch) alone; each batch is dealt out over the
    processes, and `weights` says how much of a step's gradient is this process's, so that several
    take the steps of one.
    """

    def __init__(
        self, size: int, batch: int, seed: int, *, process: int = 0, processes: int = 1
    ) -> None:
        self.size, self.batch, self.seed, self.process, self.processes, self.epoch = (
            size,
            batch,
            seed,
            process,
            processes,
            0,
        )

    def __len__(self) -> int:
        return math.ceil(self.size / self.batch)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        for batch in torch.randperm(self.size, generator=generator).split(self.batch):
            mine = batch.tolist()[self.process :: self.processes]
            yield mine or batch.tolist()[:1]  # without a share it still takes part, with weight 0

    @property
    def weights(self) -> list[float]:
        """For each step, this process's images as a share of the batch.

        The shares of all processes sum to 1.
        """
        sizes = [min(self.batch, self.size - start) for start in range(0, self.size, self.batch)]
        return [len(range(self.process, n, self.processes)) / n for n in sizes]


class Training:
    """Everything that moves while a model is tuned.

    The weights that may, the optimizer, its schedule, and the order of images.
    """

    def __init__(
        self,
        recipe: Recipe,
        lr: float,
        model: nn.Module,
        shots: list[Sample],
        accelerator: Accelerator,
    ) -> None:
        restrict(model, last_blocks=recipe.last_blocks, lora=recipe.lora)
        transform = joint_transform(model, train=True, flip=recipe.flip, protocol=recipe.protocol)
        self.dataset = MaskedImages(shots, transform, recipe.seed)
        process, processes = accelerator.process_index, accelerator.num_processes
        self.batches = Batches(
            len(shots), recipe.batch_size, recipe.seed, process=process, processes=processes
        )
        self.loader = DataLoader(
            self.dataset, batch_sampler=self.batches, num_workers=_workers(recipe)
        )
        free = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(free, lr=lr, weight_decay=recipe.weight_decay)
        self.schedule = torch.optim.lr_scheduler.StepLR(
            optimizer, recipe.lr_decay_every, recipe.lr_decay
        )
        self.wrapped, self.optimizer = accelerator.prepare(model, optimizer)
        self.model: nn.Module = accelerator.unwrap_model(self.wrapped)
        self.accelerator, self.recipe = accelerator, recipe

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def epoch(self, number: int, step: Step, advance: Callable[[], None]) -> dict[str, float]:
        """One pass over the shots: mean of each term over steps and processes."""
        accelerator = self.accelerator
        self.dataset.epoch = self.batches.epoch = number
        batches = (
            (weight, [part.to(accelerator.device) for part in batch])
            for weight, batch in zip(self.batches.weights, self.loader, strict=True)
        )
        sums = descend(
            self.wrapped,
            self.optimizer,
            batches,
            step,
            backward=lambda loss: accelerator.backward(
                loss * accelerator.num_processes  # gradients are averaged over processes
            ),
            advance=advance,
            where=f"epoch {number}",
        )
        self.schedule.step()
        means = accelerator.reduce(
            torch.tensor(list(sums.values()), device=accelerator.device), "sum"
        ) / len(self.loader)
        return dict(zip(sums, means.tolist(), strict=True))


def descend(
    model: nn.Module,
    optimizer: Any,
    batches: Iterable[tuple[float, list[Tensor]]],
    step: Step,
    *,
    backward: Callable[[Tensor], Any] = Tensor.backward,
    advance: Callable[[], Any] = lambda: None,
    where: str = "training",
) -> dict[str, float]:
    """A step of the optimizer for each batch: the one loop in which weights move.

    Args:
        model: in training mode afterwards.
        optimizer: of its weights.
        batches: what part of a step's gradient a batch is, and its images, masks and labels.
        step: the objective.
        backward: takes the weighted loss back to the gradients.
        advance: is called after each step.
        where: for the message of a loss that is not finite.

    Returns:
        The weighted sum of each term over the batches.

    Raises:
        Diverged: a term became NaN or infinite.
    """
    model.train()
    sums: dict[str, float] = {}
    for position, (weight, batch) in enumerate(batches):
        terms = step(model, *batch)
        _must_be_finite(terms, f"{where}, step {position}")
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + weight * value.item()
        optimizer.zero_grad()
        backward(terms["loss"] * weight)
        optimizer.step()
        advance()
    return sums


def _must_be_finite(terms: dict[str, Tensor], where: str) -> None:
    for name in sorted(
        terms, key=lambda name: name == "loss"
    ):  # the sum last: the term that spoils it is the news
        value = terms[name]
        if not torch.isfinite(value):
            raise Diverged(
                f"{where}: term {name!r} is {value.item()}; the last good checkpoint is kept. "
                "Lower ‹lr›, or use ‹precision=fp32› if it was bf16"
            )


def mean_terms(
    model: nn.Module,
    batches: DataLoader[Any],
    step: Step,
    device: torch.device,
    epoch: int,
    *,
    shown: bool = False,
) -> dict[str, float]:
    """Mean of each term over validation images, without touching the weights or their gradients."""
    model.eval()
    sums: dict[str, float] = {}
    count = 0
    for images, masks, labels in track(batches, "validation", shown=shown):
        terms = step(model, images.to(device), masks.to(device), labels.to(device))
        _must_be_finite(terms, f"epoch {epoch}, validation")
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.item() * len(images)
        count += len(images)
    return {name: total / count for name, total in sums.items()}


def masked_loader(samples: list[Sample], model: nn.Module, recipe: Recipe) -> DataLoader[Any]:
    """Images and masks by the model's evaluation crop, in the order given."""
    dataset = MaskedImages(samples, joint_transform(model, train=False, protocol=recipe.protocol))
    return DataLoader(dataset, batch_size=32, num_workers=_workers(recipe))


def _workers(recipe: Recipe) -> int:
    return workers_for(recipe.workers, pick_device(recipe.device).type)
