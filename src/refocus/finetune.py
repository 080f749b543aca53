"""The only training loop: few shots, one forward and two backward passes a step, resumable, and it must do no harm."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, set_seed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from refocus import runs
from refocus.attention import vision_transformer
from refocus.checkpoints import Checkpoint, keep_epochs, replace_file
from refocus.errors import InputError
from refocus.harm import as_record, candidates, choose, interpolate
from refocus.images import MaskedImages, joint_transform
from refocus.models import class_names, load, pick_device, save, source
from refocus.objectives import Step, objective
from refocus.recipe import Recipe
from refocus.records import Sample, write_line
from refocus.selection import Selection, choose_samples, from_json, to_json

log = logging.getLogger("refocus")
_LAST, _BEST = "last.pt", "best.safetensors"
Progressed = Callable[[dict[str, Any]], None]


class Diverged(InputError):
    """A loss term became NaN or infinite; the last good checkpoint is kept."""


# --- the loop -----------------------------------------------------------------------------------------------------------


class Batches(Sampler[list[int]]):
    """The batches of one process. The order of an epoch follows from (seed, epoch) alone; each batch is dealt out over the
    processes, and `weights` says how much of a step's gradient is this process's, so that several take the steps of one.
    """

    def __init__(self, size: int, batch: int, seed: int, *, process: int = 0, processes: int = 1) -> None:
        self.size, self.batch, self.seed, self.process, self.processes, self.epoch = size, batch, seed, process, processes, 0

    def __len__(self) -> int:
        return math.ceil(self.size / self.batch)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        for batch in torch.randperm(self.size, generator=generator).split(self.batch):
            mine = batch.tolist()[self.process :: self.processes]
            yield mine or batch.tolist()[:1]  # without a share it still takes part, with weight 0

    @property
    def weights(self) -> list[float]:
        """For each step, this process's images as a share of the batch; the shares of all processes sum to 1."""
        sizes = [min(self.batch, self.size - start) for start in range(0, self.size, self.batch)]
        return [len(range(self.process, n, self.processes)) / n for n in sizes]


def tune(recipe: Recipe, out: str | Path, *, on_epoch: Progressed | None = None, progress: bool = True) -> dict[str, Any]:
    """Fine-tune a model's relevance and write `out/model` (timm hub format), `out/results.json` and the run's records.

    Args:
        recipe: model, folders, objective and schedule.
        out: a new folder.
        on_epoch: called after each epoch with its line of `history.jsonl`.

    Returns:
        What `results.json` holds: the best epoch, the candidates on the line between original and tuned weights, and the choice.

    Raises:
        InputError: the user's input cannot be used (nothing is written then).
        Diverged: a term of the loss became NaN or infinite.
    """
    accelerator = _accelerator(recipe)
    recipe = _absolute(recipe)
    model = load(recipe.model)
    vision_transformer(model)
    _step(recipe)
    selection = choose_samples(recipe, model)
    folder: Path | None = None
    refusal = ""
    if accelerator.is_main_process:  # one process makes the folder; all stop if it may not
        try:
            folder = runs.new_folder(out)
            runs.write_json(folder / "recipe.json", recipe.to_dict())
            runs.write_json(folder / "selection.json", to_json(selection))
        except InputError as error:
            refusal = str(error)
    folder, refusal = broadcast_object_list([folder, refusal])
    if refusal:
        raise InputError(refusal)
    return _run(recipe, selection, model, folder, accelerator, on_epoch, progress)


def resume(run: str | Path, *, on_epoch: Progressed | None = None, progress: bool = True) -> dict[str, Any]:
    """Continue an interrupted `tune` from its last whole epoch; on a CPU it ends with the same weights, bit for bit."""
    folder = Path(run).expanduser()
    if (folder / runs.MANIFEST).exists():
        raise InputError(f"--resume {run}: this run is complete; its model is in {folder / 'model'}")
    if not (folder / "selection.json").exists():
        raise InputError(f"--resume {run}: not a run folder of `refocus tune` (no selection.json)")
    recipe = Recipe.from_dict(runs.read_json(folder / "recipe.json"))
    selection = from_json(runs.read_json(folder / "selection.json"))
    return _run(recipe, selection, load(recipe.model), folder, _accelerator(recipe), on_epoch, progress)


def complete(recipe: Recipe, run: str | Path, *, progress: bool = True) -> dict[str, Any]:
    """Whatever is left to do of a run: all of it, the rest of it, or nothing but reading its results. For long series of runs."""
    folder = Path(run).expanduser()
    if not (folder / "selection.json").exists():
        return tune(recipe, folder, progress=progress)
    if runs.read_json(folder / "recipe.json") != _absolute(recipe).to_dict():
        raise InputError(f"{run}: was started with another recipe; name a new folder")
    if (folder / runs.MANIFEST).exists():
        return runs.read_json(folder / "results.json")
    return resume(folder, progress=progress)


def _absolute(recipe: Recipe) -> Recipe:
    """With absolute folders, so that a run can be resumed from anywhere."""
    given = {name: getattr(recipe, name) for name in ("images", "masks", "val", "val_masks")}
    if Path(recipe.model).expanduser().is_dir():
        given["model"] = recipe.model
    places: dict[str, Any] = {k: None if v is None else str(Path(v).expanduser().resolve()) for k, v in given.items()}
    return replace(recipe, **places)


def _step(recipe: Recipe, seen: list[int] | None = None) -> Step:
    weights: dict[str, Any] = recipe.weights
    return objective(recipe.objective, second_order=recipe.second_order, temperature=recipe.temperature, seen=seen, **weights)


def _accelerator(recipe: Recipe) -> Accelerator:
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no usable CUDA device; legal here: auto, cpu")
    if recipe.device == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: this machine has no usable MPS device; legal here: auto, cpu")
    AcceleratorState._reset_state(reset_partial_state=True)  # else a second run in this process could not choose another precision
    return Accelerator(cpu=pick_device(recipe.device).type == "cpu", mixed_precision="bf16" if recipe.precision == "bf16" else "no")


def _run(
    recipe: Recipe,
    selection: Selection,
    model: nn.Module,
    folder: Path,
    accelerator: Accelerator,
    on_epoch: Progressed | None,
    progress: bool,
) -> dict[str, Any]:
    set_seed(recipe.seed)
    step = _step(recipe, seen=sorted({s.label for s in selection.train}))
    dataset = MaskedImages(selection.train, joint_transform(model, train=True, flip=recipe.flip), recipe.seed)
    batches = Batches(
        len(dataset), recipe.batch_size, recipe.seed, process=accelerator.process_index, processes=accelerator.num_processes
    )
    loader = DataLoader(dataset, batch_sampler=batches, num_workers=recipe.workers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, recipe.lr_decay_every, recipe.lr_decay)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    model = accelerator.unwrap_model(wrapped)
    checkpoints = folder / "checkpoints"
    if accelerator.is_main_process:
        checkpoints.mkdir(exist_ok=True)
    state = Checkpoint(model, optimizer, schedule)
    best: dict[str, Any] = (
        state.read(checkpoints / _LAST) if (checkpoints / _LAST).exists() else {"epoch": -1, "best": -1, "loss": math.inf}
    )
    history = folder / "history.jsonl"
    if accelerator.is_main_process:
        keep_epochs(history, best["epoch"])
    validation = _masked_loader(selection.select, model, recipe)

    steps = len(batches)
    with _progress(progress and accelerator.is_main_process) as bar:
        task = bar.add_task(
            f"tuning ({recipe.objective})", total=recipe.epochs * steps, completed=(best["epoch"] + 1) * steps, note=""
        )
        for epoch in range(best["epoch"] + 1, recipe.epochs):
            dataset.epoch = batches.epoch = epoch
            line: dict[str, Any] = {"epoch": epoch, "lr": optimizer.param_groups[0]["lr"]}
            line["train"] = _train_epoch(
                wrapped, loader, batches.weights, step, optimizer, accelerator, epoch, lambda: bar.advance(task)
            )
            schedule.step()
            if accelerator.is_main_process:
                line["validation"] = _mean_terms(model, validation, step, accelerator.device, epoch)
                if line["validation"]["loss"] < best["loss"]:
                    best.update(best=epoch, loss=line["validation"]["loss"])
                    replace_file(checkpoints / _BEST, lambda path: save_file(_cpu_state(model), path))
                best["epoch"] = epoch
                with history.open("a") as file:
                    write_line(file, line)
                state.write(checkpoints / _LAST, best)
                bar.update(task, note=f"validation loss {line['validation']['loss']:.4f}, best {best['loss']:.4f}")
            accelerator.wait_for_everyone()
            if on_epoch:
                on_epoch(line)

    results: dict[str, Any] = {}
    if accelerator.is_main_process:
        results = _conclude(recipe, selection, folder, best, accelerator)
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    return results


def _train_epoch(
    model: nn.Module,
    loader: DataLoader[Any],
    weights: list[float],
    step: Step,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    epoch: int,
    advance: Callable[[], None],
) -> dict[str, float]:
    """One pass over the shots: mean of each term over steps and processes."""
    model.train()
    sums: dict[str, float] = {}
    for position, (weight, batch) in enumerate(zip(weights, loader, strict=True)):
        terms = step(model, *(part.to(accelerator.device) for part in batch))
        _must_be_finite(terms, f"epoch {epoch}, step {position}")
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + weight * value.item()
        optimizer.zero_grad()
        accelerator.backward(terms["loss"] * weight * accelerator.num_processes)  # gradients are averaged over processes
        optimizer.step()
        advance()
    means = accelerator.reduce(torch.tensor(list(sums.values()), device=accelerator.device), "sum") / len(loader)
    return dict(zip(sums, means.tolist(), strict=True))


def _must_be_finite(terms: dict[str, Tensor], where: str) -> None:
    for name in sorted(terms, key=lambda name: name == "loss"):  # the sum last: the term that spoils it is the news
        value = terms[name]
        if not torch.isfinite(value):
            raise Diverged(
                f"{where}: term {name!r} is {value.item()}; the last good checkpoint is kept. "
                "Lower --lr, or use --precision fp32 if it was bf16"
            )


def _mean_terms(model: nn.Module, batches: DataLoader[Any], step: Step, device: torch.device, epoch: int) -> dict[str, float]:
    """Mean of each term over validation images, without touching the weights or their gradients."""
    model.eval()
    sums: dict[str, float] = {}
    count = 0
    for images, masks, labels in batches:
        terms = step(model, images.to(device), masks.to(device), labels.to(device))
        _must_be_finite(terms, f"epoch {epoch}, validation")
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.item() * len(images)
        count += len(images)
    return {name: total / count for name, total in sums.items()}


# --- the end of a run ---------------------------------------------------------------------------------------------------------


def _conclude(recipe: Recipe, selection: Selection, folder: Path, best: dict[str, Any], accelerator: Accelerator) -> dict[str, Any]:
    """Choose between original and best weights, save the model and the finding, the manifest last."""
    if best["best"] < 0:
        raise Diverged("no epoch had a finite validation loss; lower --lr")
    original = load(recipe.model, device=accelerator.device)
    tuned = load_file(folder / "checkpoints" / _BEST)
    start = {name: value.clone() for name, value in original.state_dict().items()}
    batches = list(_masked_loader(selection.check, original, recipe))
    images, masks, labels = (torch.cat([batch[i] for batch in batches]) for i in range(3))
    found = candidates(original, start, tuned, images, masks, labels, recipe.tolerance)
    advised, finding = choose(found, recipe.tolerance)
    share = found[advised].share if recipe.do_no_harm else 1.0
    original.load_state_dict(interpolate(start, tuned, share))
    save(original.cpu(), folder / "model")
    results = {
        "model": source(original),
        "objective": recipe.objective,
        "best_epoch": best["best"],
        "check_images": len(selection.check),
        "tolerance": recipe.tolerance,
        "candidates": [as_record(candidate) for candidate in found],
        "advised_share": found[advised].share,
        "chosen_share": share,
        "finding": finding,
        "trained_classes": _names(selection.train, original),
    }
    runs.write_json(folder / "results.json", results)
    runs.finish(folder, "tune", seed=recipe.seed, processes=accelerator.num_processes)
    return results


# --- checkpoints and small parts ----------------------------------------------------------------------------------------


def _cpu_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def _masked_loader(samples: list[Sample], model: nn.Module, recipe: Recipe) -> DataLoader[Any]:
    dataset = MaskedImages(samples, joint_transform(model, train=False))
    return DataLoader(dataset, batch_size=32, num_workers=recipe.workers)


def _progress(shown: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, disable=not shown, console=Console(stderr=True))


def _names(samples: list[Sample], model: nn.Module) -> list[str]:
    names = class_names(model)
    return [names[label] if names else str(label) for label in dict.fromkeys(s.label for s in samples)]
