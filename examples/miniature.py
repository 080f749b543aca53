"""An ImageNet in miniature: the paper's layout, with handwritten digits in the place of its images.

    python examples/miniature.py FOLDER [--seeds 0 1 2]
    refocus study NAME --data FOLDER/data.toml --out OUT --classes 5 --lr relevance=1e-4

Ten ImageNet classes that all of the paper's test sets have stand for the digits 0 to 9. As in
`refocus demo` each digit has a texture of its own in training, so the models learn the texture; one
model is made for each seed, in the place of ViT-B, AR-B and DeiT-B. The numbers say nothing of
ImageNet: this shows what a study reads and what its tables and figures look like.

A test set is made from what it stands for: new draws of the same (imagenet, imagenet-v2), other
textures (imagenet-a), these as negatives (imagenet-r), digits without a texture (imagenet-sketch),
backgrounds of other images (objectnet), and objects moved, turned and scaled (si-*).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from timm.data import ImageNetInfo
from torch import nn

from refocus.data import shift_folders
from refocus.demo import digits
from refocus.demo.example import write_folders
from refocus.demo.story import plant_shortcut
from refocus.files import write_json, write_text
from refocus.outputs import new_folder
from refocus.records import Sample
from refocus.vit.loading import save

# index -> name in SI-Score; all are among the classes of ImageNet-A and ImageNet-R
CLASSES = {
    99: "goose",
    105: "koala",
    150: "sea lion",
    327: "starfish",
    334: "hedgehog",
    361: "skunk",
    407: "ambulance",
    437: "lighthouse",
    470: "candle",
    472: "canoe",
}
SUITES = (
    "imagenet",
    "imagenet-v2",
    "imagenet-a",
    "imagenet-r",
    "imagenet-sketch",
    "objectnet",
    "si-location",
    "si-rotation",
    "si-size",
)
SEGMENTS = "gtsegs_ijcv.mat"
MODELS = ("ViT-B", "AR-B", "DeiT-B")
TRAIN, SEGMENTED = 12, 4  # images of a class
NEVER = -30.0  # logit of the 990 classes that no digit stands for


def drawn(count: int, seed: int, *, biased: bool, split: str = "test") -> tuple[Any, Any, Any]:
    """Labels, images `[n, H, W, 3]` and masks `[n, H, W]`, `count` of each digit."""
    labels = np.repeat(np.arange(10), count)
    rng = np.random.default_rng([1, seed])
    return labels, *digits.draw(labels, rng, split=split, biased=biased, faded=False)


def put(root: Path, name: str, drawing: tuple[Any, Any, Any], folders: Sequence[str]) -> None:
    """Write `root/name/FOLDER/FILE` and the masks beside it, in `root/name-masks`."""
    write_folders(root / "drawn", *drawing)
    for kind, target in (("images", root / name), ("masks", root / f"{name}-masks")):
        for digit, folder in enumerate(folders):
            target.mkdir(exist_ok=True)
            (root / "drawn" / kind / str(digit)).rename(target / folder)
    shutil.rmtree(root / "drawn")


def write_suites(root: Path, synsets: Sequence[str], count: int) -> None:
    """The training images and the test sets, `count` images of each class."""
    names = list(CLASSES.values())
    put(root, "train", drawn(TRAIN, 0, biased=True, split="train"), synsets)
    put(root, "imagenet", drawn(count, 1, biased=True), synsets)
    put(root, "imagenet-v2", drawn(count, 2, biased=True), [str(i) for i in CLASSES])
    labels, images, masks = drawn(count, 3, biased=False)
    put(root, "imagenet-a", (labels, images, masks), synsets)
    put(root, "imagenet-r", (labels, 1 - images, masks), synsets)
    white = np.broadcast_to(masks[..., None], images.shape)
    put(root, "imagenet-sketch", (labels, 0.2 + 0.8 * white, masks), synsets)
    write_moved(root, names, synsets, count)
    mappings = root / "objectnet" / "mappings"
    mappings.mkdir()
    content = {
        "folder_to_objectnet_label.json": {name: name for name in names},
        "objectnet_to_imagenet_1k.json": {name: name for name in names},
        "pytorch_to_imagenet_2012_id.json": {str(i): n for n, i in enumerate(CLASSES)},
    }
    for file, table in content.items():
        write_json(mappings / file, table)
    write_text(mappings / "imagenet_to_label_2012_v2", "\n".join(names))


def write_moved(root: Path, names: Sequence[str], synsets: Sequence[str], count: int) -> None:
    """ObjectNet and SI-Score: shifts of the validation images, classes by name.

    SI-Score has each of its images at every place, turn and size, so a fifth of them is enough.
    """
    samples = [
        Sample(image, digit, root / "imagenet-masks" / synset / image.name)
        for digit, synset in enumerate(synsets)
        for image in sorted((root / "imagenet" / synset).iterdir())
    ]
    few = [s for n, s in enumerate(samples) if n % count < max(1, count // 5)]
    for kind, target, some in (
        ("mixed-rand", root / "objectnet" / "images", samples),
        *((kind, root / f"si-{kind}", few) for kind in ("location", "rotation", "size")),
    ):
        shift_folders.write(some, root / "shifted", [kind], seed=0)
        for file in sorted((root / "shifted" / kind).rglob("*.png")):
            level = "" if kind == "mixed-rand" else f"{file.parents[1].name}-"
            place = target / names[synsets.index(file.parent.name)]
            place.mkdir(parents=True, exist_ok=True)
            file.rename(place / f"{level}{file.name}")
    shutil.rmtree(root / "shifted")


def write_segments(file: Path) -> None:
    """Images with masks as MATLAB keeps them: columns first, each mask in a cell of its own."""
    _, images, masks = drawn(SEGMENTED, 4, biased=False)
    with h5py.File(file, "w") as store:
        rows = {
            name: store.create_dataset(f"value/{name}", (len(images), 1), dtype=h5py.ref_dtype)
            for name in ("img", "gt")
        }
        for n, (image, mask) in enumerate(zip(images, masks, strict=True)):
            pixels = (255 * image).round().astype(np.uint8).transpose(2, 1, 0)
            rows["img"][n, 0] = store.create_dataset(f"#refs#/image{n}", data=pixels).ref
            cell = store.create_dataset(f"#refs#/cell{n}", (1, 1), dtype=h5py.ref_dtype)
            shape = (mask > 0.5).astype(np.uint8).T
            cell[0, 0] = store.create_dataset(f"#refs#/mask{n}", data=shape).ref
            rows["gt"][n, 0] = cell.ref


def widened(model: nn.Module) -> nn.Module:
    """A model of ten digits with ImageNet's 1000 outputs, in ImageNet's order."""
    vit: Any = model
    old = vit.head
    vit.reset_classifier(1000)
    with torch.no_grad():
        vit.head.weight.zero_()
        vit.head.bias.fill_(NEVER)
        vit.head.weight[list(CLASSES)] = old.weight
        vit.head.bias[list(CLASSES)] = old.bias
    vit.pretrained_cfg.pop("label_names", None)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], choices=[0, 1, 2])
    parser.add_argument("--images", type=int, default=20, help="of each class of a test set")
    parser.add_argument("--size", type=int, default=2400, help="images that each model learns from")
    given = parser.parse_args()
    root = new_folder(given.folder)
    synsets = [ImageNetInfo("imagenet-1k").label_names()[i] for i in CLASSES]
    write_suites(root, synsets, given.images)
    write_segments(root / SEGMENTS)
    models = {MODELS[seed]: f"models/{MODELS[seed]}" for seed in given.seeds}
    for seed in given.seeds:
        save(widened(plant_shortcut(seed, size=given.size)), root / models[MODELS[seed]])
    tables = {
        "train": {"images": "train", "annotated": "train-masks"},
        "suites": {**{name: name for name in SUITES}, "imagenet-segmentation": SEGMENTS},
        "models": models,
    }
    lines = [
        f"[{table}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in rows.items())
        for table, rows in tables.items()
    ]
    write_text(root / "data.toml", "\n".join(lines))
    print(f"written: {root / 'data.toml'}")


if __name__ == "__main__":
    main()
