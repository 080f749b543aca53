"""Model x folder -> one prediction per image. Records first; accuracies are computed from them afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from refocus.errors import InputError
from refocus.images import eval_image, read_image, scan
from refocus.metrics import accuracy, paired_difference
from refocus.models import class_count, folder_names
from refocus.records import Prediction, Sample, drop_partial_line, read_lines, write_line

log = logging.getLogger("refocus")
Item = tuple[Sample, Tensor | None, str]


@dataclass(frozen=True)
class SuiteResult:
    """predictions: one for each readable image. unreadable: path below the folder -> why."""

    predictions: list[Prediction]
    unreadable: dict[str, str]


class _Images(Dataset[Item]):
    def __init__(self, samples: list[Sample], transform: Any) -> None:
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Item:
        sample = self.samples[position]
        try:
            return sample, self.transform(read_image(sample.image)), ""
        except InputError as error:
            return sample, None, str(error)


def predict(
    model: nn.Module, samples: list[Sample], *, root: Path, batch_size: int = 64, workers: int = 0, label: str = ""
) -> Iterator[Prediction | tuple[str, str]]:
    """A Prediction for each readable sample, in order; (path, reason) for each other one. The model is used in eval mode."""
    device = next(model.parameters()).device
    loader = DataLoader(_Images(samples, eval_image(model)), batch_size=batch_size, num_workers=workers, collate_fn=list)
    was_training = model.training
    model.eval()
    try:
        for batch in track(
            loader, description=label or "evaluating", disable=not label, transient=True, console=Console(stderr=True)
        ):
            good = [(s, x) for s, x, _ in batch if x is not None]
            answers = iter(_answers(model, [x for _, x in good], device))
            for sample, pixels, reason in batch:
                name = sample.image.relative_to(root).as_posix()
                if pixels is None:
                    yield name, reason
                else:
                    top5, confidence = next(answers)
                    yield Prediction(name, sample.label, top5, confidence)
    finally:
        model.train(was_training)


def _answers(model: nn.Module, images: list[Tensor], device: torch.device) -> list[tuple[tuple[int, ...], float]]:
    if not images:
        return []
    with torch.inference_mode():
        shares = model(torch.stack(images).to(device)).float().softmax(1)
    best, classes = shares.topk(min(5, shares.shape[1]), dim=1)
    return [(tuple(c), b[0]) for c, b in zip(classes.tolist(), best.tolist(), strict=True)]


def evaluate(
    model: nn.Module, folder: str | Path, *, records: Path | None = None, batch_size: int = 64, workers: int = 0, label: str = ""
) -> SuiteResult:
    """Predictions of one model on an ImageFolder with the model's class names (WordNet ids for ImageNet models).

    Args:
        records: JSONL file that receives one line per image as it is made; lines already there are not computed again.
        label: description of the progress bar; none without it.

    Raises:
        InputError: no such folder, an empty class, a class the model does not know, or no readable image at all.
    """
    root = Path(folder).expanduser()
    samples = scan(root, model, option="--on")
    done: dict[str, dict[str, Any]] = {}
    if records:
        drop_partial_line(records)
        done = {line["image"]: line for line in read_lines(records)}
    missing = [s for s in samples if s.image.relative_to(root).as_posix() not in done]
    fresh: dict[str, dict[str, Any]] = {}
    sink = records.open("a") if records else None
    try:
        for answer in predict(model, missing, root=root, batch_size=batch_size, workers=workers, label=label):
            line = _line(answer)
            fresh[line["image"]] = line
            if sink:
                write_line(sink, line)
    finally:
        if sink:
            sink.close()
    result = _suite_result([{**done, **fresh}[s.image.relative_to(root).as_posix()] for s in samples])
    if not result.predictions:
        raise InputError(f"--on {root}: none of its {len(samples)} images can be read")
    for reason in result.unreadable.values():
        log.warning("skipped: %s", reason)
    return result


def _line(answer: Prediction | tuple[str, str]) -> dict[str, Any]:
    if isinstance(answer, Prediction):
        return {"image": answer.image, "label": answer.label, "top5": list(answer.top5), "confidence": answer.confidence}
    return {"image": answer[0], "unreadable": answer[1]}


def _suite_result(lines: list[dict[str, Any]]) -> SuiteResult:
    predictions = [Prediction(x["image"], x["label"], tuple(x["top5"]), x["confidence"]) for x in lines if "unreadable" not in x]
    return SuiteResult(predictions, {x["image"]: x["unreadable"] for x in lines if "unreadable" in x})


def summary(
    model: nn.Module, result: SuiteResult, against: tuple[nn.Module, SuiteResult] | None = None, seed: int = 0
) -> dict[str, Any]:
    """One suite's entry in results.json; `against` adds another model's accuracy and the paired difference."""
    entry = {**accuracy(result.predictions, _names(model)), "unreadable": result.unreadable}
    if against is not None:
        other, theirs = against
        before = accuracy(theirs.predictions, _names(other))  # its own names: the order of its classes may differ
        entry["against"] = {key: before[key] for key in ("top1", "top5", "n", "per_class")}
        entry["difference"] = paired_difference(result.predictions, theirs.predictions, seed)
    return entry


def _names(model: nn.Module) -> list[str]:
    """Class folder names, which are unique (ImageNet's descriptions are not)."""
    return folder_names(model) or [str(i) for i in range(class_count(model))]
