"""Plant a shortcut: a benchmark on which a model relies on the background.

It is built from any image folder with masks:

    python examples/planted_shortcut.py --images IMAGES --masks MASKS --model MODEL --out OUT
    python examples/planted.py --data OUT --model OUT/model --out TUNED   # compare objectives on it

IMAGES is an ImageFolder, MASKS what `refocus masks` or a person made for it, MODEL a ViT of timm to
start from. Objects of some classes are pasted on the object-free backgrounds of others; each object
class has a background class of its own. OUT then holds

    biased/         what the model is fine-tuned on: faded objects, a stated share of them on their
                    own background
    tune/           objects as they are on their own backgrounds, to draw tuning images from (the
                    same objects as in biased/)
    test_same/      other objects on their own background, and
    test_shuffled/  on the backgrounds that belong to the other classes
    model/          fine-tuned until the test sets are at least --gap points apart
    benchmark.json  the settings, which background goes with which object, and the accuracies after
                    each epoch

each set with images/ and masks/. The test sets decide when to stop biasing, so they say nothing of
how biased models generally are; they are there to compare what is done to this model afterwards.

Not every choice of classes can be biased. Take objects that MODEL often mistakes (with objects of
95 % accuracy no setting we tried gave a gap of 30 points, with objects of 80 % the defaults gave 41
in two epochs), and backgrounds that look alike within their class and unlike across classes: sky,
sea, desert, street.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from refocus import InputError, evaluate, load
from refocus.data.composites import Scene, placed, without_object
from refocus.data.folders import class_folders, scan
from refocus.data.images import mask_of, read_image
from refocus.data.transforms import MaskedImages, joint_transform
from refocus.masks.trust import trusted
from refocus.records import Sample
from refocus.vit.classes import folder_names
from refocus.vit.loading import preprocessing, save

_AREA = 0.3  # of the image, taken by the object's bounding box
_CENTRES = (0.35, 0.65)  # between which the object's centre is drawn


# --- composites ---------------------------------------------------------------------------------


def square(image: Image.Image, mask: Tensor, size: int) -> tuple[Image.Image, Tensor]:
    """Image and mask `[1, H, W]` padded to a square: no central crop then loses anything."""
    flat = Image.fromarray((255 * mask[0].numpy()).round().astype(np.uint8))
    padded = np.asarray(ImageOps.pad(flat, (size, size)), dtype=np.float32) / 255
    return ImageOps.pad(image, (size, size)), torch.from_numpy(padded)[None]


def compose(
    item: Sample, donor: Sample, size: int, opacity: float, rng: random.Random
) -> tuple[Image.Image, Image.Image]:
    """One object somewhere on a donor's background, and its exact mask."""
    assert item.mask is not None
    assert donor.mask is not None
    image = read_image(item.image)
    image, mask = square(image, mask_of(item, image), size)
    other = read_image(donor.image)
    background = ImageOps.fit(
        without_object(other, mask_of(donor, other)), image.size, Image.Resampling.BICUBIC
    )
    centre = (rng.uniform(*_CENTRES), rng.uniform(*_CENTRES))
    pasted = placed(Scene(image, mask), background, area=_AREA, centre=centre, angle=0)
    white, black = (Image.new("RGB", image.size, colour) for colour in ("white", "black"))
    area = placed(Scene(white, mask), black, area=_AREA, centre=centre, angle=0).convert("L")
    return Image.blend(background, pasted, opacity), area


@dataclass(frozen=True)
class Benchmark:
    """items: object class -> its samples.

    grounds: object class -> samples of the background class that goes with it.
    """

    items: dict[str, list[Sample]]
    grounds: dict[str, list[Sample]]
    out: Path
    size: int
    rng: random.Random

    def write(self, suite: str, *, copies: int, share: float, opacity: float = 1.0) -> None:
        """`copies` of each object, a `share` of them on their own background.

        The others stand on that of another class.
        """
        for name, items in track(self.items.items(), description=suite):
            others = [g for other in self.grounds if other != name for g in self.grounds[other]]
            for kind in ("images", "masks"):
                (self.out / suite / kind / name).mkdir(parents=True)
            pairs = [item for item in items for _ in range(copies)]
            own = round(share * len(pairs))
            at = set(self.rng.sample(range(len(pairs)), own))
            for number, item in enumerate(pairs):
                donor = self.rng.choice(self.grounds[name] if number in at else others)
                image, mask = compose(item, donor, self.size, opacity, self.rng)
                image.save(self.out / suite / "images" / name / f"{number:03}.jpg", quality=95)
                mask.save(self.out / suite / "masks" / name / f"{number:03}.png")


# --- the model ----------------------------------------------------------------------------------


def with_classes(model: nn.Module, names: list[str]) -> nn.Module:
    """The model with these classes only.

    Their rows of its classifier where it knows them, a new classifier otherwise.
    """
    known = folder_names(model) or []
    head: Any = model.get_classifier()
    weight, bias = head.weight.data, head.bias.data
    model.reset_classifier(len(names))
    if set(names) <= set(known):
        rows = [known.index(name) for name in names]
        head = model.get_classifier()
        head.weight.data, head.bias.data = weight[rows].clone(), bias[rows].clone()
    model.pretrained_cfg = {**model.pretrained_cfg, "label_names": names, "num_classes": len(names)}
    return model


def top1(model: nn.Module, out: Path) -> dict[str, float]:
    answers = {
        suite: evaluate(model, out / suite / "images").predictions
        for suite in ("test_same", "test_shuffled")
    }
    return {suite: 100 * mean(p.right for p in found) for suite, found in answers.items()}


def bias(model: nn.Module, out: Path, args: argparse.Namespace) -> list[dict[str, float]]:
    """Cross-entropy on biased/ until the tests are `args.gap` points apart.

    Returns their accuracies before and after each epoch.
    """
    samples = scan(out / "biased" / "images", model, masks=out / "biased" / "masks")
    data = MaskedImages(samples, joint_transform(model, train=True), args.seed)
    loader = DataLoader(data, batch_size=args.batch_size, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=1e-4)
    found = [top1(model, out)]
    print(f"before: {found[0]}", flush=True)
    for epoch in range(args.epochs):
        data.epoch = epoch
        model.train()
        for images, _, labels in track(loader, description=f"epoch {epoch}"):
            with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
                loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(top1(model.eval(), out))
        print(f"epoch {epoch}: {found[-1]}", flush=True)
        if found[-1]["test_same"] - found[-1]["test_shuffled"] >= args.gap:
            break
    return found


# --- the command --------------------------------------------------------------------------------


def usable_samples(args: argparse.Namespace) -> dict[str, list[Sample]]:
    """Class -> its images with a trusted mask, of all folders."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for images, masks in zip(args.images, args.masks, strict=True):
        files = [file for files in class_folders(images, "--images").values() for file in files]
        samples = [Sample(file, 0, masks / file.parent.name / f"{file.stem}.png") for file in files]
        masked = [s for s in samples if s.mask is not None and s.mask.is_file()]
        for sample in trusted(masked, masks, args.mask_score):
            found[sample.image.parent.name].append(sample)
    return found


def chosen_classes(every: set[str], args: argparse.Namespace, rng: random.Random) -> dict[str, str]:
    """Object class -> the class whose backgrounds go with it, sorted.

    Drawn by the seed where they are not named.
    """
    for option in ("objects", "backgrounds", "leave_out"):
        if unknown := set(getattr(args, option) or ()) - every:
            raise InputError(
                f"--{option.replace('_', '-')} {sorted(unknown)[0]}: no class with usable masks; "
                "choose one of " + ", ".join(sorted(every))
            )
    named = [*(args.objects or ()), *(args.backgrounds or ())]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise InputError(
            f"--objects, --backgrounds: {twice[0]} is named twice; a class gives objects or "
            "backgrounds, and once"
        )
    left = sorted(every - {*args.leave_out, *(args.objects or ()), *(args.backgrounds or ())})
    rng.shuffle(left)
    objects = args.objects or [left.pop() for _ in range(min(args.classes, len(left)))]
    backgrounds = args.backgrounds or [left.pop() for _ in range(min(len(objects), len(left)))]
    if not len(objects) == len(backgrounds) >= 2:
        raise InputError(
            f"{len(objects)} object and {len(backgrounds)} background classes: as many of one as "
            "of the other, and at least 2, "
            f"are needed of the {len(every)} with usable masks; lower --classes or --leave-out"
        )
    return dict(sorted(zip(objects, backgrounds, strict=True)))


def check(args: argparse.Namespace) -> None:
    if args.out.exists():
        raise InputError(f"--out {args.out}: exists and is not overwritten; name a new folder")
    for option in ("share", "opacity"):
        if not 0 <= (value := getattr(args, option)) <= 1:
            raise InputError(f"--{option} {value:g}: must be 0 to 1")
    for option in ("copies", "epochs", "batch_size"):
        if (value := getattr(args, option)) < 1:
            raise InputError(f"--{option.replace('_', '-')} {value}: must be 1 or more")
    if len(args.images) != len(args.masks):
        raise InputError(
            f"--masks: {len(args.masks)} folders for {len(args.images)} of --images; give one for "
            "each, in their order"
        )


def build(args: argparse.Namespace) -> None:
    check(args)
    rng = random.Random(args.seed)
    by_class = usable_samples(args)
    ground_of = chosen_classes(
        {name for name, found in by_class.items() if len(found) > 1}, args, rng
    )
    model = load(args.model)
    if not hasattr(model, "reset_classifier"):
        raise InputError(
            f"--model {args.model}: its classifier cannot be exchanged; choose one of "
            "the models of timm"
        )
    for name in (*ground_of, *ground_of.values()):
        rng.shuffle(by_class[name])
    size = preprocessing(model)["input_size"][-1]
    parts: dict[str, tuple[dict[str, list[Sample]], dict[str, list[Sample]]]] = {
        "train": ({}, {}),
        "test": ({}, {}),
    }
    for (
        name,
        ground,
    ) in ground_of.items():  # neither an object nor a background is in train and in test
        for kind, source in enumerate((name, ground)):
            cut = max(1, round(0.6 * len(by_class[source])))
            parts["train"][kind][name], parts["test"][kind][name] = (
                by_class[source][:cut],
                by_class[source][cut:],
            )
    train, test = (Benchmark(*parts[part], args.out, size, rng) for part in ("train", "test"))
    train.write("biased", copies=args.copies, share=args.share, opacity=args.opacity)
    train.write("tune", copies=1, share=1)
    test.write("test_same", copies=args.copies, share=1)
    test.write("test_shuffled", copies=args.copies, share=0)
    model = with_classes(model, list(ground_of))
    found = bias(model, args.out, args)
    save(model, args.out / "model")
    settings = {k: v for k, v in vars(args).items() if k not in ("images", "masks", "model", "out")}
    (args.out / "benchmark.json").write_text(
        json.dumps({"settings": settings, "background_of": ground_of, "top1": found}, indent=1),
        encoding="utf-8",
    )
    gap = found[-1]["test_same"] - found[-1]["test_shuffled"]
    if gap < args.gap:
        raise SystemExit(
            f"error: after {len(found) - 1} epochs the test sets are only {gap:.1f} points apart "
            f"(--gap {args.gap:g}); raise "
            "--epochs, --share or --lr, lower --opacity, or name --objects that the model mistakes "
            "more often, with a new --out"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        required=True,
        help="one folder or several with the same classes",
    )
    parser.add_argument(
        "--masks", type=Path, nargs="+", required=True, help="as many as --images, in their order"
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--classes",
        type=int,
        default=10,
        help="object classes, and as many for backgrounds, drawn by --seed",
    )
    parser.add_argument(
        "--objects", nargs="+", metavar="CLASS", help="object classes by name instead"
    )
    parser.add_argument(
        "--backgrounds",
        nargs="+",
        metavar="CLASS",
        help="background classes by name, in the objects' order",
    )
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="CLASS", help="classes that are not drawn"
    )
    parser.add_argument(
        "--share", type=float, default=1, help="of the biased images with their own background"
    )
    parser.add_argument(
        "--opacity", type=float, default=0.1, help="of the objects in the biased images"
    )
    parser.add_argument(
        "--copies",
        type=int,
        default=3,
        help="composites of each object in biased/ and in the tests",
    )
    parser.add_argument(
        "--gap", type=float, default=30, help="points between the tests at which biasing stops"
    )
    parser.add_argument("--epochs", type=int, default=10, help="of biasing, at most")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=4e-5)
    parser.add_argument(
        "--mask-score",
        type=float,
        default=0.5,
        help="masks that `refocus masks` scored lower are left out",
    )
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    try:
        build(args)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
