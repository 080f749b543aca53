"""Where a model looks, measured image by image: against masks, and against the model itself.

A map that fits the mask is not yet a better explanation, so insertion and deletion ask whether the
pixels it points at carry the decision. One record per image; `scores` makes numbers with intervals
of them.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from refocus.data.images import mask_of, read_image
from refocus.data.transforms import PAPER_SCALE, joint_transform
from refocus.errors import InputError, first_line
from refocus.evaluation.collect import Question, collect
from refocus.evaluation.intervals import estimate, mean_change, sums_interval
from refocus.evaluation.metrics import (
    SEGMENTATION,
    background_share,
    object_seen,
    pointing_hit,
    segmentation_counts,
)
from refocus.intervals import swap_chance
from refocus.records import MapRecord, Records, Sample, record_of, told_apart
from refocus.relevance.answers import logits_of
from refocus.relevance.gae import explain
from refocus.results import Change, Compared, Estimate
from refocus.vit.loading import preprocessing

log = logging.getLogger("refocus")
_COLUMN = {"pixel_accuracy": 1, "map": 6}  # of `segmentation_counts`: scores that are its mean
_MISSED = (1, 0, 0, 1, 0, 1, 0)  # `segmentation_counts` of a map that misses its mask
_MET = (1, 1, 0.5, 0.5, 0.5, 0.5, 1)  # and of one that meets it
_STEPS = 16  # of insertion and deletion, ends left out; RISE takes one per row of pixels
MEANS = (
    "background_share",
    "pointing",
    "insertion",
    "deletion",
)  # of a record: means over images, in [0, 1]


class MaskedView:
    """What the model sees of an image and its mask, by its own evaluation crop or the paper's.

    `[3, H, W]` and `[H, W]`.
    """

    def __init__(self, model: nn.Module, protocol: str = "standard") -> None:
        self.transform = joint_transform(model, train=False, protocol=protocol)

    def __call__(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Image `[3, H, W]` and mask `[H, W]` of a sample."""
        image = read_image(sample.image)
        assert sample.mask is not None  # only samples with a mask come here
        pixels, mask = self.transform(image, tv_tensors.Mask(mask_of(sample, image)))
        return pixels, mask[0]


class Gtsegs:
    """ImageNet-Segmentation (Guillaumin et al., IJCV 2014), `gtsegs_ijcv.mat`.

    Image and mask are squeezed to the model's input size, the mask by nearest neighbour of the
    pixels' centres, as in the published test. A sample's file name is its number in the file.

    Deviation: normalized as the model was trained; the published test takes mean = std = 0.5 for
        all, as does the protocol `paper`.
    """

    def __init__(self, file: Path, model: nn.Module, protocol: str = "standard") -> None:
        config = {**preprocessing(model), **(PAPER_SCALE if protocol == "paper" else {})}
        size = list(config["input_size"][1:])
        self.file = file
        self.picture = v2.Compose(
            [
                v2.Resize(size),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(config["mean"], config["std"]),
            ]
        )
        self.shape = v2.Resize(size, v2.InterpolationMode.NEAREST_EXACT)
        if not file.is_file():
            raise InputError(
                f"‹suites› imagenet-segmentation={file}: no such file; expected gtsegs_ijcv.mat"
            )

    @cached_property
    def content(self) -> Any:
        """The open file."""
        try:
            import h5py
        except ImportError as error:
            raise InputError(
                "‹suites› imagenet-segmentation: h5py is not installed; run `pip install "
                "refocus-vit[mat]`"
            ) from error
        with self._guarded():
            return h5py.File(self.file)["value"]

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """What HDF5 raises of a file that is none, or another one, differs by what is wrong."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"‹suites› imagenet-segmentation={self.file}: not gtsegs_ijcv.mat "
                f"({first_line(error)})"
            ) from error

    def __getstate__(self) -> dict[str, Any]:  # an open file does not travel to worker processes
        return {k: v for k, v in self.__dict__.items() if k != "content"}

    def samples(self) -> list[Sample]:
        """One sample for each image of the file."""
        with self._guarded():
            count = len(self.content["img"])
            if count != len(self.content["gt"]) or count * _REFERENCE > self.file.stat().st_size:
                raise ValueError(f"{count} images")
        del self.content  # forked processes must not share an open file
        return [Sample(self.file / f"{number:05d}", 0) for number in range(count)]

    def __call__(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Image `[3, H, W]` and mask `[H, W]` of a sample."""
        number = int(sample.image.name)
        with self._guarded():
            file = self.content.file
            pixels = _values(file[self.content["img"][number, 0]], 3)  # stored [3, W, H]
            cell = file[self.content["gt"][number, 0]]
            mask = _values(file[cell[0, 0]], 2)  # stored [W, H], 1 is foreground
            if pixels.shape != (3, *mask.shape):
                raise ValueError(f"image {number} and its mask differ in size")
        image = Image.fromarray(pixels.transpose(2, 1, 0).astype(np.uint8))
        shape = torch.from_numpy((mask.T > 0).astype(np.float32))[None]
        return self.picture(image), self.shape(shape)[0]


_REFERENCE = 8  # bytes of a reference in HDF5


def _values(stored: Any, axes: int) -> np.ndarray:
    """A data set of HDF5, where it has the size of a picture; else it could fill the memory."""
    shape = tuple(stored.shape)
    if len(shape) != axes or not 0 < math.prod(shape) <= 3 * (Image.MAX_IMAGE_PIXELS or 1 << 27):
        raise ValueError(f"a picture of the shape {shape}")
    if stored.dtype.kind not in "biuf":
        raise ValueError(f"a picture of {stored.dtype}")
    return np.asarray(stored)


def measure(
    model: nn.Module,
    samples: Sequence[Sample],
    root: Path,
    load: Callable[[Sample], tuple[Tensor, Tensor]],
    *,
    faithful: int = 0,
    records: Path | None = None,
    workers: int = 0,
    label: str = "",
) -> Records[MapRecord]:
    """One record per image on the map of its predicted class.

    Args:
        model: whose maps they are.
        samples: images with masks.
        root: the folder that their paths are given below.
        load: a sample -> image `[3, H, W]` and mask `[H, W]`.
        faithful: insertion and deletion on so many of the images, spread evenly; 36 further forward
            passes each.
        records: JSONL file, see `collect`.
        workers: processes that load.
        label: description of the progress bar; none without it.
    """
    chosen = {
        samples[i].image
        for i in np.linspace(0, len(samples) - 1, min(faithful, len(samples))).astype(int)
    }
    device = next(model.parameters()).device

    def answer(batch: list[Sample], items: list[tuple[Tensor, Tensor]]) -> list[dict[str, Any]]:
        images, masks = torch.stack([x for x, _ in items]), torch.stack([m for _, m in items])
        found = explain(model, images.to(device))
        shares = background_share(found.patches.cpu(), masks, found.covered)
        told = object_seen(masks, found.covered) & ~shares.isnan()
        rows = []
        for position, sample in enumerate(batch):
            relevance, mask = found.relevance[position].cpu(), masks[position]
            row = _fit(relevance, mask, float(shares[position])) if told[position] else _NOTHING
            if sample.image in chosen:
                target = int(found.targets[position])
                areas = insertion_deletion(model, images[position], relevance, target)
                row = {**row, "insertion": areas[0], "deletion": areas[1]}
            rows.append(row)
        return rows

    held = collect(
        samples,
        root,
        Question(load, answer, partial(record_of, kind=MapRecord, source=records or root)),
        records=records,
        batch_size=32,
        workers=workers,
        label=label,
    )
    found: Records[MapRecord] = told_apart(held)
    for reason in found.unreadable.values():
        log.warning("skipped: %s", reason)
    _say_left_out(found.rows, label)
    return found


_NOTHING: dict[str, Any] = {"background_share": None, "pointing": None, "segmentation": None}


def _fit(relevance: Tensor, mask: Tensor, share: float) -> dict[str, Any]:
    """Of a record, how a map fits the mask."""
    hit = pointing_hit(relevance, mask)
    return {
        "background_share": share,
        "pointing": None if hit is None else float(hit),
        "segmentation": segmentation_counts(relevance, mask),
    }


def _say_left_out(rows: Sequence[MapRecord], label: str) -> None:
    if left := sum(row.segmentation is None for row in rows):
        log.warning(
            "%s%d of %d images do not count in map scores: the model's crop shows nothing of their "
            "object, or their map has no relevance",
            f"{label}: " if label else "",
            left,
            len(rows),
        )


def insertion_deletion(
    model: nn.Module, image: Tensor, relevance: Tensor, target: int
) -> tuple[float, float]:
    """Areas under the curves of RISE (Petsiuk et al., BMVC 2018), in [0, 1].

    The target's softmax share while the most relevant pixels first appear in a blurred image
    (insertion, high is good) or turn into the mean colour (deletion, low is good).

    image: normalized `[3, H, W]`. relevance `[H, W]`. Deviation: 16 steps between the ends, where
        RISE takes one per row of pixels.
    """
    order = torch.empty(relevance.numel(), dtype=torch.long)
    order[relevance.flatten().argsort(descending=True, stable=True)] = torch.arange(
        relevance.numel()
    )
    rank = order.reshape(relevance.shape) / relevance.numel()
    shares = torch.linspace(0, 1, _STEPS + 2)
    shown = (rank < shares[:, None, None]).float()[:, None]  # the so many most relevant pixels
    blurred = v2.functional.gaussian_blur(image, [11, 11], [5.0, 5.0])
    inserted = shown * image + (1 - shown) * blurred
    deleted = (1 - shown) * image  # 0 is the mean colour
    device = next(model.parameters()).device
    with torch.inference_mode():
        scores = (
            logits_of(model, torch.cat([inserted, deleted]).to(device))
            .float()
            .softmax(1)[:, target]
            .cpu()
        )
    insertion, deletion = (torch.trapezoid(s, shares).item() for s in scores.chunk(2))
    return insertion, deletion


def scores(
    model: Sequence[MapRecord], against: Sequence[MapRecord] | None = None, seed: int = 0
) -> dict[str, Compared]:
    """Name of a map score -> its value in [0, 1].

    With the records of another model also the paired change, over the images that both have. An
    image counts only where a number has something to compare (see `MapRecord`).

    pixel_accuracy, miou and map are the published segmentation test; one minus background_share is
    the energy on the object.
    """
    rows = [(row, row) for row in model] if against is None else _shared(model, against)
    if not rows:
        return {}
    found = {}
    both = [(a.segmentation, b.segmentation) for a, b in rows if a.segmentation and b.segmentation]
    columns = np.array(both)
    for name in SEGMENTATION if both else ():
        if name in _COLUMN:
            found[name] = _of_means(columns[:, :, _COLUMN[name]], seed, alone=against is None)
        else:
            found[name] = _of_sums(columns, SEGMENTATION[name], seed, alone=against is None)
    for name in MEANS:
        values = np.array(
            [pair for a, b in rows if None not in (pair := (getattr(a, name), getattr(b, name)))],
            dtype=float,
        )
        if len(values):
            found[name] = _of_means(values, seed, alone=against is None)
    return found


def _shared(
    model: Sequence[MapRecord], against: Sequence[MapRecord]
) -> list[tuple[MapRecord, MapRecord]]:
    other = {row.image: row for row in against}
    return [(row, other[row.image]) for row in model if row.image in other]


def _of_sums(
    columns: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int,
    *,
    alone: bool,
) -> Compared:
    """A score made of sums; columns `[n, 2, k]`, the first model's first."""
    n, width = len(columns), columns.shape[2]
    model, against = columns[:, 0], columns[:, 1]
    value, other = (float(statistic(part.sum(0)[None])[0]) for part in (model, against))
    number = Estimate(value, sums_interval(model, statistic, (_MISSED, _MET), seed), n)
    if alone:
        return Compared(number)
    interval = sums_interval(
        columns.reshape(n, -1),
        lambda sums: statistic(sums[:, :width]) - statistic(sums[:, width:]),
        ((*_MISSED, *_MET), (*_MET, *_MISSED)),
        seed,
        telling=int((model != against).any(1).sum()),
    )
    p = swap_chance(model, against, statistic, seed)
    return Compared(number, Estimate(other, None, n), Change(value - other, interval, n, p))


def _of_means(values: np.ndarray, seed: int, *, alone: bool) -> Compared:
    """A score that is a mean over images; values `[n, 2]`, the first model's first."""
    number = estimate(values[:, 0], (0.0, 1.0), seed)
    if alone:
        return Compared(number)
    other = Estimate(float(values[:, 1].mean()), None, len(values))
    return Compared(number, other, mean_change(values[:, 0] - values[:, 1], (-1.0, 1.0), seed))
