"""Model x test set -> one record per image.

Records first; every number is computed from them afterwards.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from refocus import fingerprints, outputs
from refocus.data.sources.opened import opened
from refocus.data.trained import gone_images, say_left_out, trained_images, without
from refocus.errors import InputError
from refocus.evaluation.collect import Question, collect, softmax_shares
from refocus.evaluation.metrics import (
    accuracy,
    calibration_difference,
    group_accuracies,
    group_differences,
    paired_difference,
)
from refocus.evaluation.suites import TestSet, open_suite
from refocus.files import read_json, write_json
from refocus.records import Prediction, Records, Sample, read_records, record_of, told_apart
from refocus.results import Classification
from refocus.vit.classes import class_folder_names
from refocus.vit.inputs import check_model, check_path
from refocus.vit.loading import reading_digest, source, weights_digest
from refocus.vit.precision import in_bfloat16

log = logging.getLogger("refocus")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of a function or an object, another in each process


@dataclass(frozen=True)
class SuiteResult:
    """One model's answers on one test set."""

    predictions: list[Prediction]  # one for each readable image
    unreadable: dict[str, str]  # path below the folder -> why


class _Seen:
    """What the model sees of a sample (a class, so that worker processes can receive it)."""

    def __init__(self, tests: TestSet) -> None:
        self.tests = tests

    def __call__(self, sample: Sample) -> Tensor:
        return self.tests.transform(self.tests.read(sample))


def evaluate(
    model: nn.Module,
    tests: TestSet | str | Path,
    *,
    records: str | Path | None = None,
    batch_size: int = 64,
    workers: int = 0,
    label: str = "",
) -> SuiteResult:
    """Predictions of one model on a test set, with a record for each image.

    Args:
        model: from `refocus.load`, or any supported module.
        tests: from `suites.open_suite`, or an ImageFolder with the model's class names (WordNet ids
            for ImageNet models), or any source that docs/inputs.md names. The images that a run
            of `refocus tune` trained the model on, and copies of them, are left out; a notice says
            how many. A model without class names takes those of the folders, and keeps them.
        records: JSONL file that receives one line per image as it is made; lines already there are
            not computed again. FILE.settings.json beside it says whose answers it holds.
        batch_size: images per forward pass.
        workers: processes that decode images.
        label: description of the progress bar; none without it.

    Returns:
        SuiteResult: a Prediction for each image (the five best classes and their shares), and why
            which image could not be read.

    Raises:
        InputError: no such folder, an empty class, a class the model does not know, no readable
            image at all, answers that are no numbers, or records of another model, folder,
            preprocessing or precision.

    Examples:
        >>> import refocus
        >>> from refocus.demo.example import write
        >>> example = write("example")
        >>> result = refocus.evaluate(refocus.load(example.model), example.images)
        >>> len(result.predictions), sum(p.right for p in result.predictions) > 30
        (40, True)
    """
    check_model(model)
    _at_least("batch_size", batch_size, 1)
    _at_least("workers", workers, 0)
    if not isinstance(tests, TestSet):
        folder = opened(check_path(tests, "tests"), "tests", part="test").images
        tests = _unseen(open_suite("", folder, model), source(model))

    file = None if records is None else check_path(records, "records")
    if file is not None:
        _refuse_other(file, _whose(model, tests))
    return answers_on(
        model, tests, records=file, batch_size=batch_size, workers=workers, label=label
    )


def answers_on(
    model: nn.Module,
    tests: TestSet,
    *,
    records: Path | None = None,
    batch_size: int = 64,
    workers: int = 0,
    label: str = "",
) -> SuiteResult:
    """`evaluate` where the caller sees to it that records are of this model and test set.

    As a folder does that is resumed with the same settings alone (`outputs.resumable`).
    """

    def answer(samples: list[Sample], images: Any) -> list[dict[str, Any]]:
        return answers_of(model, samples, images, tests.among)

    hold = partial(record_of, kind=Prediction, source=records or tests.root)
    found = collect(
        tests.samples,
        tests.root,
        Question(_Seen(tests), answer, hold),
        records=records,
        batch_size=batch_size,
        workers=workers,
        label=label,
    )
    return answered(told_apart(found), tests.root)


def _whose(model: nn.Module, tests: TestSet) -> dict[str, str]:
    """What decides every line of a records file: model, images, and how they are seen."""
    seen = [tests.transform, tests.read, tests.among]
    return {
        "weights": weights_digest(model),
        "preprocessing and class names": reading_digest(model),
        "protocol": fingerprints.of_text([_ADDRESS.sub("", repr(part)) for part in seen]),
        "folder": str(tests.root.resolve()),
        "files": fingerprints.of_tree(tests.root),
        "precision": "bf16" if in_bfloat16() else "fp32",
    }


def _refuse_other(records: Path, now: dict[str, str]) -> None:
    """Stop where a records file holds other answers; else keep beside it whose it holds."""
    kept = records.with_name(f"{records.name}.{outputs.SETTINGS}")
    if records.exists() and records.stat().st_size:
        if not kept.exists():
            raise InputError(
                f"records {records}: {kept.name} is missing, which says whose answers it holds; "
                "name a new file"
            )
        if said := outputs.difference(read_json(kept), now):
            raise InputError(
                f"records {records}: holds other answers ({said}; see {kept.name}); name a new file"
            )
        return
    records.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, now)


def _unseen(tests: TestSet, model: str) -> TestSet:
    """A test set without the images that a model was tuned on."""
    trained = trained_images(model)
    if not trained:
        return tests
    gone = gone_images(model)
    shown, count = f"‹tests› {tests.root}", len(tests.samples)
    left = without(tests.samples, trained, shown, gone)
    say_left_out({shown: (count - len(left), count)}, trained, gone)
    return replace(tests, samples=left)


def answers_of(
    model: nn.Module, samples: Sequence[Sample], images: Any, among: Sequence[int] | None
) -> list[dict[str, Any]]:
    """The content of the records of one batch; images `[B, 3, H, W]` as the model sees them."""
    shares = softmax_shares(model, images, among)
    best, classes = shares.topk(min(5, shares.shape[1]), dim=1)
    rows = zip(samples, classes.tolist(), best[:, 0].tolist(), shares, strict=True)
    return [
        {
            "label": s.label,
            "top5": c,
            "confidence": round(b, 6),  # below that, shares depend on how images were batched
            "true_confidence": round(float(p[s.label]), 6),
            **({"also": s.also} if s.also else {}),
        }
        for s, c, b, p in rows
    ]


def answered(found: Records[Prediction], root: Path) -> SuiteResult:
    """Records as answers; those that could not be read are said.

    Raises:
        InputError: none could be read.
    """
    if not found.rows:
        lacking = len(found.unreadable)
        raise InputError(f"‹suites› {root}: none of its {lacking} images can be read")
    for reason in found.unreadable.values():
        log.warning("skipped: %s", reason)
    return SuiteResult(found.rows, found.unreadable)


def _at_least(name: str, value: object, low: int) -> None:
    if type(value) is not int or value < low:
        raise InputError(f"‹{name}› {value}: must be a whole number of at least {low}")


def read_predictions(records: Path) -> list[Prediction]:
    """The readable images of a records file.

    One that is missing is an error, not an empty answer.
    """
    return read_records(records, Prediction).rows


def summary(
    model: nn.Module,
    result: SuiteResult,
    against: tuple[nn.Module, SuiteResult] | None = None,
    seed: int = 0,
    *,
    trained: Collection[int] = (),
    groups: dict[str, str] | None = None,
) -> Classification:
    """The numbers of one suite; `against` adds another model's accuracy and the paired changes.

    Args:
        model: whose answers they are.
        result: the answers.
        against: another model and its answers on the same images.
        seed: of the intervals.
        trained: labels of the classes that were tuned on; splits the images into these and the
            rest.
        groups: image -> name of its group; adds each group's accuracy, the worst first.
    """
    names = class_folder_names(model)
    predictions = result.predictions

    def by_class(p: Prediction) -> str:
        return names[p.label]

    def by_training(p: Prediction) -> str:
        return "tuned on" if p.label in trained else "never tuned on"

    def by_group(p: Prediction) -> str:
        return (groups or {}).get(p.image, "without a group")

    found = Classification(
        accuracy(predictions, names, seed),
        groups=group_accuracies(predictions, by_group, seed) if groups else (),
        unreadable=result.unreadable,
    )
    if against is None:
        return found
    other, answered = against
    others = answered.predictions
    return replace(
        found,
        # its own names: its order may differ
        against=accuracy(others, class_folder_names(other), seed),
        change=paired_difference(predictions, others, seed),
        calibration_change=calibration_difference(predictions, others),
        class_changes=group_differences(predictions, others, by_class, seed),
        trained_changes=group_differences(predictions, others, by_training, seed)
        if trained
        else (),
        group_changes=group_differences(predictions, others, by_group, seed) if groups else (),
    )
