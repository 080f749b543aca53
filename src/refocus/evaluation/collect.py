"""Walk through images once, resumably: what a model answers becomes one record per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from refocus.errors import InputError
from refocus.processes import sharing
from refocus.progress import phase
from refocus.records import Sample, appending, drop_partial_line, each_line, write_line
from refocus.relevance.answers import usable_logits
from refocus.relevance.switches import evaluating

Load = Callable[[Sample], Any]
Answer = Callable[
    [list[Sample], Any], list[dict[str, Any]]
]  # samples, and what was loaded of each: a list, or stacked

Hold = Callable[[dict[str, Any]], Any]


def _whole(line: dict[str, Any]) -> dict[str, Any]:
    return line


@dataclass(frozen=True)
class Question:
    """What is asked about each image.

    load: a sample -> what `answer` needs of it; runs in worker processes. An InputError makes the
    sample unreadable. answer: the samples and loaded items of a batch -> the content of their
    records. hold: a record -> what of it is held in memory, as there may be very many.
    """

    load: Load
    answer: Answer
    hold: Hold = _whole


class _Loaded(Dataset[tuple[Sample, Any, str]]):
    def __init__(self, samples: Sequence[Sample], load: Load) -> None:
        self.samples, self.load = samples, load

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> tuple[Sample, Any, str]:
        sample = self.samples[position]
        try:
            return sample, self.load(sample), ""
        except InputError as error:
            return sample, None, str(error)


def _together(batch: list[tuple[Sample, Any, str]]) -> tuple[list[tuple[Sample, str]], Any]:
    """Samples with their problems, and what was loaded of the readable ones.

    One tensor where it can be, which a worker process hands over at once instead of one by one.
    """
    items = [item for _, item, problem in batch if not problem]
    alike = bool(items) and all(
        isinstance(item, Tensor) and item.shape == items[0].shape for item in items
    )
    return [(sample, problem) for sample, _, problem in batch], torch.stack(
        items
    ) if alike else items


def collect(
    samples: Sequence[Sample],
    root: Path,
    question: Question,
    *,
    records: Path | None = None,
    batch_size: int = 64,
    workers: int = 0,
    label: str = "",
) -> list[Any]:
    """What is held of one record per sample, in order.

    {"image": path below root, ...}, with "unreadable": reason where it cannot be read. Within
    `processes.shared` each process answers its share of the batches.

    Args:
        samples: images, in the order of the records.
        root: the folder that their paths are given below.
        question: what is loaded of each, and what becomes its record.
        records: JSONL file that receives each line as it is made; lines already there are
            kept, and whole batches of such are not computed again.
        batch_size: images in a batch.
        workers: processes that load; 0 loads in this one.
        label: description of the progress bar; none without it.
    """
    group = sharing()
    done = kept_lines(records, question.hold) if records else {}
    names = [name_of(s, root) for s in samples]
    # the same batches whoever shares them and wherever an earlier start stopped, so that answers
    # are the same to the last digit
    every = range(len(samples))
    batches = [list(every[at : at + batch_size]) for at in every[::batch_size]]
    left = [batch for batch in batches if any(names[i] not in done for i in batch)]
    mine = iter(
        DataLoader(
            _Loaded(samples, question.load),
            batch_sampler=left[group.rank :: group.count],
            num_workers=workers,
            collate_fn=_together,
            generator=torch.Generator(),  # else it draws a number from the caller's
        )
    )
    with (
        appending(records) if records else nullcontext() as sink,
        phase(label, len(samples), done=sum(n in done for n in names), shown=group.first) as seen,
    ):
        for _ in left[:: group.count]:
            batch, items = next(mine, ([], []))  # the last round is not everyone's
            before = len(done)
            for line in group.joined(_lines(batch, items, question.answer, root)):
                if line["image"] not in done:
                    done[line["image"]] = question.hold(line)
                    if sink:
                        write_line(sink, line)
            seen.advance(len(done) - before)  # at once: a batch is no slower than its images
    return [done[name] for name in names]


def kept_lines(records: Path, hold: Hold = _whole) -> dict[str, Any]:
    """What is held of the lines that an earlier start has left, by image.

    Those of the first process; the others' folders are new, and are given them as well, as pages
    are made of the files.
    """
    drop_partial_line(records)
    if sharing().count == 1:  # line by line, so that no more than is held is in memory
        return {_named(line, records): hold(line) for line in each_line(records)}
    mine = {_named(line, records): line for line in each_line(records)}
    kept = sharing().agreed(mine)
    if lacking := [line for name, line in kept.items() if name not in mine]:
        with appending(records) as sink:
            for line in lacking:
                write_line(sink, line)
    return {name: hold(line) for name, line in kept.items()}


def _lines(
    batch: list[tuple[Sample, str]], items: Any, answer: Answer, root: Path
) -> list[dict[str, Any]]:
    """The records of a batch."""
    answers = iter(answer([s for s, problem in batch if not problem], items) if len(items) else [])
    return [
        {"image": name_of(s, root), **({"unreadable": problem} if problem else next(answers))}
        for s, problem in batch
    ]


def _named(line: dict[str, Any], source: Path) -> str:
    """The image that a record is of."""
    if isinstance(line.get("image"), str):
        return str(line["image"])
    raise InputError(
        f"{source}: a record names no image; remove the file, and what it held is computed again"
    )


def name_of(sample: Sample, root: Path) -> str:
    """What records call an image: its path below the root."""
    return sample.image.relative_to(root).as_posix()


def softmax_shares(
    model: nn.Module, images: Sequence[Tensor] | Tensor, among: Sequence[int] | None = None
) -> Tensor:
    """Softmax shares `[B, K]` on the CPU; outside of `among` they are 0.

    The model is in eval mode meanwhile and left as it was.

    Raises:
        InputError: answers that are no numbers.
    """
    pixels = images if isinstance(images, Tensor) else torch.stack(list(images))
    with evaluating(model), torch.inference_mode():
        logits = usable_logits(model, pixels)
    if among is not None:
        outside = torch.ones(logits.shape[1], dtype=torch.bool)
        outside[list(among)] = False
        logits = logits.masked_fill(outside, -torch.inf)
    return logits.softmax(1)
