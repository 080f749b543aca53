"""All shifts of an image at once, answered by one model or two.

An image is decoded and taken apart once, what is composed of it is made once for all models, and
the models answer the same batches. The records are those of `evaluate`: one file for each shift and
model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from refocus.data.shifts import Opened, Shift
from refocus.errors import InputError
from refocus.evaluation.classify import SuiteResult, answered, answers_of
from refocus.evaluation.collect import kept_lines, name_of
from refocus.evaluation.suites import TestSet
from refocus.processes import sharing
from refocus.progress import phase
from refocus.records import (
    Prediction,
    Sample,
    appending,
    each_line,
    record_of,
    told_apart,
    write_line,
)
from refocus.vit.loading import Models, preprocessing

Line = dict[str, Any]
Found = tuple[int, str, str, Line]  # number of the stage, model, image, record
Wanted = tuple[Sample, str, tuple[int, ...]]  # an image, its name, the numbers of stages


@dataclass(frozen=True)
class Stage:
    """One shift at one level.

    name: of its records. samples: model ("model", and perhaps "against") -> the images with that
    model's labels, the same images in the same order for all.
    """

    name: str
    shift: Shift
    samples: dict[str, list[Sample]]


@dataclass(frozen=True)
class _Made:
    """Of one image: the numbers of the stages that were made, and why others were not.

    views: what each preprocessing shows of them, `[stages, 3, H, W]`.
    """

    name: str
    stages: list[int]
    problems: dict[int, str]
    views: list[Tensor]


class _Composed(Dataset[_Made]):
    """Images with the numbers of the stages that are wanted of them."""

    def __init__(
        self,
        wanted: list[Wanted],
        shifts: list[Shift],
        views: list[Callable[[Image.Image], Tensor]],
    ) -> None:
        self.wanted, self.shifts, self.views = wanted, shifts, views

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, position: int) -> _Made:
        sample, name, stages = self.wanted[position]
        opened, pictures, problems = Opened(sample), {}, {}
        for number in stages:
            try:
                pictures[number] = self.shifts[number].of(opened)
            except InputError as error:
                problems[number] = str(error)
        views = [torch.stack([see(p) for p in pictures.values()]) for see in self.views if pictures]
        return _Made(name, list(pictures), problems, views)


def answer_stages(
    models: Models,
    tests: dict[str, TestSet],
    stages: Sequence[Stage],
    folder: Path,
    *,
    batch_size: int = 64,
    workers: int = 0,
    label: str = "",
) -> Mapping[str, dict[str, SuiteResult]]:
    """Every model's answers in every stage, by the stage's name and then the model's.

    A stage is read from its records whenever it is asked for: of many images and shifts all answers
    would not fit into memory.

    Args:
        models: who answers.
        tests: the test set that the stages are made of, as each model is asked about it.
        stages: what is answered.
        folder: of the records, `STAGE.MODEL.jsonl`; lines already there are kept,
            and whole batches of such are not computed again.
        batch_size: images per forward pass.
        workers: processes that decode and compose.
        label: description of the progress bar; none without it.
    """
    group, (views, view_of) = sharing(), _views(models, tests)
    kept = _Kept(models, tests, stages, folder)
    every = kept.every()
    size, lacking = max(1, batch_size // len(stages)), kept.lacking()
    # whole batches, as of a walk that was never cut off: answers are the same to the last digit
    batches = [list(range(len(every))[at : at + size]) for at in range(0, len(every), size)]
    batches = [batch for batch in batches if any(every[i][1] in lacking for i in batch)]
    mine = iter(
        DataLoader(
            _Composed(every, [stage.shift for stage in stages], views),
            batch_sampler=batches[group.rank :: group.count],
            num_workers=workers,
            collate_fn=list,
        )
    )

    def answers(part: _Part, which: str) -> list[Line]:
        samples = [kept.samples[which][name] for _, name in part.of]
        pixels = part.views[view_of[which]]
        return answers_of(models[which], samples, pixels, tests[which].among)

    images = len(kept.samples["model"])  # of all stages: one may lack images without a donor
    with (
        kept.appended(),
        phase(label, images, done=images - len(lacking), shown=group.first) as seen,
    ):
        for at in range(0, len(batches), group.count):
            made: list[_Made] = next(mine, [])
            found = _unreadable(made, list(models))
            for part in _parts([each for each in made if each.stages], batch_size):
                for which in models:
                    lines = zip(part.of, answers(part, which), strict=True)
                    found += [(number, which, name, line) for (number, name), line in lines]
            for each in group.joined(found):
                kept.add(*each)
            walked = (i for batch in batches[at : at + group.count] for i in batch)
            seen.advance(sum(every[i][1] in lacking for i in walked))
    return _Answers(kept)


def _unreadable(made: list[_Made], models: list[str]) -> list[Found]:
    return [
        (number, which, each.name, {"unreadable": reason})
        for each in made
        for number, reason in each.problems.items()
        for which in models
    ]


@dataclass(frozen=True)
class _Part:
    """One forward pass: stage and image of each row, and the views `[B, 3, H, W]`."""

    of: list[tuple[int, str]]
    views: list[Tensor]


def _parts(shown: list[_Made], size: int) -> Iterator[_Part]:
    rows = [(number, made.name) for made in shown for number in made.stages]
    views = [torch.cat(of_all) for of_all in zip(*(made.views for made in shown), strict=True)]
    for start in range(0, len(rows), size):
        yield _Part(rows[start : start + size], [view[start : start + size] for view in views])


def _views(
    models: Models, tests: dict[str, TestSet]
) -> tuple[list[Callable[[Image.Image], Tensor]], dict[str, int]]:
    """The preprocessings that differ, and which one each model takes."""
    configs: list[dict[str, Any]] = []
    views, view_of = [], {}
    for which, model in models.items():
        config = preprocessing(model)
        if config not in configs:
            configs.append(config)
            views.append(tests[which].transform)
        view_of[which] = configs.index(config)
    return views, view_of


class _Names:
    """What records call images; each is worked out once, as an image is in many stages."""

    def __init__(self, root: Path) -> None:
        self.root, self.known = root, dict[Path, str]()

    def of(self, sample: Sample) -> str:
        """The name of a sample."""
        if sample.image not in self.known:
            self.known[sample.image] = name_of(sample, self.root)
        return self.known[sample.image]


class _Kept:
    """The records of all stages and models: which are there, and files to append to.

    samples: model -> image -> sample, with that model's label.
    """

    def __init__(
        self, models: Models, tests: dict[str, TestSet], stages: Sequence[Stage], folder: Path
    ) -> None:
        self.stages, self.root = stages, tests["model"].root
        self.files = {
            (number, which): folder / f"{stage.name}.{which}.jsonl"
            for number, stage in enumerate(stages)
            for which in models
        }
        self.names = _Names(self.root)
        self.samples = {
            which: {self.names.of(s): s for stage in stages for s in stage.samples[which]}
            for which in models
        }
        self.done = {key: set(kept_lines(file)) for key, file in self.files.items()}
        self.sinks: dict[tuple[int, str], Any] = {}

    def every(self) -> list[Wanted]:
        """The images, each with the stages that are made of it."""
        stages: dict[str, list[int]] = {}
        for number, stage in enumerate(self.stages):
            for sample in stage.samples["model"]:
                stages.setdefault(self.names.of(sample), []).append(number)
        alike: dict[tuple[int, ...], tuple[int, ...]] = {}  # most images are in all stages
        return [
            (self.samples["model"][name], name, alike.setdefault(some, some))
            for name, some in ((name, tuple(numbers)) for name, numbers in stages.items())
        ]

    def lacking(self) -> set[str]:
        """The images of which a record is missing."""
        return {
            name
            for (number, which), done in self.done.items()
            for sample in self.stages[number].samples[which]
            if (name := self.names.of(sample)) not in done
        }

    @contextmanager
    def appended(self) -> Iterator[None]:
        """The files are open for as long as the block lasts."""
        with ExitStack() as stack:
            self.sinks = {k: stack.enter_context(appending(f)) for k, f in self.files.items()}
            yield

    def add(self, number: int, which: str, name: str, line: Line) -> None:
        """A model's record of an image in a stage, where it is not there yet."""
        done = self.done[number, which]
        if name not in done:
            done.add(name)
            write_line(self.sinks[number, which], {"image": name, **line})


class _Answers(Mapping[str, dict[str, SuiteResult]]):
    """Stages by name, each read from its records when it is asked for."""

    def __init__(self, kept: _Kept) -> None:
        self.number = {stage.name: number for number, stage in enumerate(kept.stages)}
        self.stages, self.files, self.names = kept.stages, kept.files, kept.names

    def __len__(self) -> int:
        return len(self.number)

    def __iter__(self) -> Iterator[str]:
        return iter(self.number)

    def __getitem__(self, name: str) -> dict[str, SuiteResult]:
        """Every model's answers in the order of the stage's samples."""
        number, found = self.number[name], {}
        for which, samples in self.stages[number].samples.items():
            file = self.files[number, which]
            rows = {line["image"]: record_of(line, Prediction, file) for line in each_line(file)}
            ordered = told_apart(rows[self.names.of(s)] for s in samples)
            found[which] = answered(ordered, self.names.root)
        return found
