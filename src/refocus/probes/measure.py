"""Run probes: model x images -> one record per image -> curves with intervals.

A folder for each probe.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from refocus import outputs
from refocus.data.folders import image_files, scan
from refocus.data.images import mask_of, read_image
from refocus.data.sampling import chosen
from refocus.data.transforms import eval_image, joint_transform
from refocus.errors import InputError
from refocus.evaluation import cues
from refocus.evaluation.collect import collect
from refocus.figures.pictures import figure
from refocus.masks.trust import masked
from refocus.probes.batch import Batch, Level, Options, Views, seeds_of
from refocus.probes.registry import FOLDERS, PROBES, Probe
from refocus.probes.results import result
from refocus.probes.tools.corruptions import SEVERITIES, published
from refocus.records import Sample
from refocus.vit.loading import Models, preprocessing

log = logging.getLogger("refocus")


@dataclass(frozen=True)
class Plan:
    """images: an ImageFolder.

    most: at most so many images, spread over the classes. out: a folder for each probe lies in it.
    """

    images: Path | None
    options: Options
    out: Path
    most: int | None
    mask_score: float = 0.5
    batch_size: int = 32
    workers: int = 0
    seed: int = 0
    refs: dict[str, str] = field(default_factory=dict)  # "model", "against" -> as given

    def root(self, probe: Probe) -> Path:
        """The folder of images that a probe reads."""
        if probe.on == "cues":
            assert self.options.cues is not None
            return self.options.cues
        if probe.on == "imagenet_c":
            assert self.options.imagenet_c is not None
            return next(iter(published(self.options.imagenet_c).values())) / str(SEVERITIES[0])
        if self.images is None:
            raise InputError("‹images›: missing; an ImageFolder of the model's classes")
        return self.images

    def samples(self, probe: Probe, model: nn.Module) -> list[Sample]:
        """The images of a probe, labelled for the model."""
        root = self.root(probe)
        if probe.on == "cues":
            cues.check(root, cues.mapping(model, self.options.mapping))
            found = cues.stimuli(root)
        elif "masks" in probe.needs:
            assert self.options.masks is not None
            found = masked(
                scan(
                    root,
                    model,
                    masks=self.options.masks,
                    mask_polarity=self.options.mask_polarity,
                ),
                self.options.masks,
                self.mask_score,
            )
        else:
            found = scan(
                root, model, parameter="imagenet_c" if probe.on == "imagenet_c" else "images"
            )
        caps = [cap for cap in (self.most, probe.most) if cap is not None]
        kept = chosen(found, min(caps) if caps else None, self.seed)
        return [s for s in found if s.image in kept]

    def settings(self, probe: Probe) -> dict[str, Any]:
        """What decides every record of a probe."""
        read = {need: getattr(self.options, need) for need in probe.needs if need in FOLDERS}
        folders = {"images": self.root(probe), **read}
        if self.options.mapping and probe.on == "cues":
            folders["mapping"] = self.options.mapping
        return {
            **{which: outputs.fingerprint(ref) for which, ref in self.refs.items()},
            "folders": {
                name: [str(path.expanduser().resolve()), outputs.state(path)]
                for name, path in folders.items()
            },
            "saliency": self.options.saliency,
            "mask_score": self.mask_score if "masks" in probe.needs else None,
            "mask_polarity": self.options.mask_polarity if "masks" in probe.needs else None,
            "most": self.most,
            "seed": self.seed,
        }


def check(kinds: Sequence[str], models: Models, plan: Plan) -> None:
    """What can be wrong with folders and options, before anything is written.

    With models it is `probes.supported`.

    One folder holds probes of the same models.
    """
    for name in kinds:
        probe = PROBES[name]
        for model in models.values():
            plan.samples(probe, model)
        kept = plan.out / name / "settings.json"
        if kept.exists() and outputs.read_json(kept) != plan.settings(probe):
            raise InputError(
                f"‹out› {plan.out}: {name} was started with other models, folders or options; name "
                "a new folder"
            )
    mine = {which: outputs.fingerprint(ref) for which, ref in plan.refs.items()}
    for name in PROBES:
        kept = plan.out / name / "settings.json"
        if (
            kept.exists()
            and {k: v for k, v in outputs.read_json(kept).items() if k in ("model", "against")}
            != mine
        ):
            raise InputError(
                f"‹out› {plan.out}: holds probes of other models ({name}); name a new folder"
            )
    if plan.options.styles is not None:
        image_files(plan.options.styles, "styles")


# --- running ------------------------------------------------------------------------------------


class _Seen:
    """What the model sees of a sample, and its mask where one is needed.

    `[3, H, W]`, or `[4, H, W]` with the mask last.
    """

    def __init__(self, model: nn.Module, *, with_mask: bool) -> None:
        self.with_mask = with_mask
        self.transform: Any = (
            joint_transform(model, train=False) if with_mask else eval_image(model)
        )

    def __call__(self, sample: Sample) -> Tensor:
        image = read_image(sample.image)
        if not self.with_mask:
            values: Tensor = self.transform(image)
            return values
        assert sample.mask is not None
        pixels, mask = self.transform(image, tv_tensors.Mask(mask_of(sample, image)))
        return torch.cat([part.as_subclass(Tensor) for part in (pixels, mask.to(pixels.dtype))])


def batch_of(
    model: nn.Module, samples: list[Sample], seen: Tensor, root: Path, plan: Plan
) -> Batch:
    """The batch that a probe is given."""
    device, config = next(model.parameters()).device, preprocessing(model)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels = (seen[:, :3] * std + mean).clamp(0, 1).to(device)
    masks = seen[:, 3:].to(device) if seen.shape[1] > 3 else None
    labels = torch.tensor([s.label for s in samples], device=device)
    return Batch(
        model,
        pixels,
        labels,
        seeds_of(samples, root, plan.seed),
        samples,
        root,
        plan.options,
        masks,
    )


def run(name: str, models: Models, plan: Plan) -> dict[str, Any]:
    """One probe on every model -> OUT/NAME: records, result.json, and where it has one a picture.

    A folder that is complete is read, one that is not goes on where it stopped, of the same
    settings alone.
    """
    probe = PROBES[name]
    folder = outputs.resumable(
        plan.out / name, True, plan.settings(probe), apart={"‹images›": plan.root(probe)}
    )
    if (folder / outputs.MANIFEST).exists():
        log.info("%s: there already, read from its records", name)
        content: dict[str, Any] = outputs.read_json(folder / "result.json")
        return content
    root, records = plan.root(probe), {}
    for which, model in models.items():
        samples = plan.samples(probe, model)

        def answer(
            batch: list[Sample], seen: Tensor, model: nn.Module = model
        ) -> list[dict[str, Any]]:
            found = probe.measure(batch_of(model, batch, seen, root, plan))
            return [
                {"values": {series: _plain(v[row]) for series, v in found.items()}}
                for row in range(len(batch))
            ]

        lines = collect(
            samples,
            root,
            _Seen(model, with_mask="masks" in probe.needs),
            answer,
            records=folder / f"{which}.jsonl",
            batch_size=plan.batch_size,
            workers=plan.workers,
            label=f"{name} ({which})",
        )
        for line in lines:
            if "unreadable" in line:
                log.warning("skipped: %s", line["unreadable"])
        records[which] = _final(probe, [line for line in lines if "unreadable" not in line])
        if not records[which]:
            raise InputError(f"{root}: none of the {len(lines)} images can be read")
    levels = {which: probe.levels_of(model) for which, model in models.items()}
    facts = {key: getattr(probe, key) for key in ("about", "source", "xlabel", "unit", "better")}
    scale = 100.0 if "%" in probe.unit else 1.0
    numbers = result(
        records, levels, scale=scale, first=probe.first, headline=probe.headline, seed=plan.seed
    )
    content = {
        "kind": name,
        **facts,
        "models": {which: outputs.resolved(ref) for which, ref in plan.refs.items()},
        **numbers,
    }
    curves = numbers["curves"].items()
    content["summary"] = (
        {which: probe.extra(_means(found)) for which, found in curves} if probe.extra else {}
    )
    _pictures(probe, models, plan, root, folder)
    outputs.write_json(folder / "result.json", content)
    outputs.finish(folder, "probe", kind=name, seed=plan.seed)
    return content


def _means(curves: dict[str, list[dict[str, Any]]]) -> dict[str, list[float]]:
    return {series: [cell["value"] for cell in row] for series, row in curves.items()}


def _plain(values: Tensor) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 6) for value in values.tolist()]


def _final(probe: Probe, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    values = [line["values"] for line in lines]
    if probe.after and values:
        values = probe.after(values)
    return [
        {"image": line["image"], "values": found} for line, found in zip(lines, values, strict=True)
    ]


_SHOWN = 4  # images in a picture


def _pictures(probe: Probe, models: Models, plan: Plan, root: Path, folder: Path) -> None:
    """What the model sees at each level (the first image), or the probe's own picture.

    The latter of the first four.
    """
    if probe.numbers and probe.picture is None:
        return
    model = models["model"]
    load, tiles = _Seen(model, with_mask="masks" in probe.needs), []
    shown: list[Sample] = []
    for sample in plan.samples(probe, model):
        try:
            tiles.append(load(sample))
            shown.append(sample)
        except InputError:  # counted and named already
            continue
        if len(shown) == (_SHOWN if probe.picture else 1):
            break
    batch = batch_of(model, shown, torch.stack(tiles), root, plan)
    if probe.picture:
        probe.picture(batch, folder / "picture.png")
    else:
        _strip(probe.run(batch), probe.levels_of(model), folder / "picture.png")


def _strip(views: Views, levels: list[Level], path: Path) -> None:
    """A row for each series, a column for each of at most seven levels, evenly taken."""
    rows: dict[str, list[Any]] = {}
    for series, pixels in views:
        rows.setdefault(series, []).append(
            (255 * pixels[0].permute(1, 2, 0).cpu().numpy()).round().astype(np.uint8)
        )
    some = np.unique(
        np.linspace(0, len(levels) - 1, min(7, len(levels))).round().astype(int)
    ).tolist()
    figure(
        [[rows[series][i] for i in some] for series in rows],
        [f"{levels[i]}" for i in some],
        [[series if n == 0 else "" for n, _ in enumerate(some)] for series in rows],
        path,
    )
