"""Things that were made to hurt: files, folders, links and contents, each under a name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

DEEP = 100_000  # levels of nesting
PICKLE = b"\x80\x04cos\nsystem\n(S'touch ran'\ntR."  # runs code where it is unpickled
DELETE = object()


def places(root: Path) -> None:
    """What is no ordinary file or folder, and what is empty or cut off."""
    root.mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "text.txt").write_text("no picture, no model, no table\n")
    (root / "nothing").write_bytes(b"")
    (root / "binary").write_bytes(bytes(range(256)) * 8)
    os.mkfifo(root / "fifo")
    (root / "zero").symlink_to("/dev/zero")
    (root / "itself").symlink_to("itself")
    (root / "nowhere").symlink_to("not-there")
    (root / "round").mkdir()
    (root / "round" / "and-round").symlink_to(".")


def json_files(root: Path) -> None:
    """Files that are no JSON, or JSON that nobody means."""
    root.mkdir()
    texts = {
        "cut": '{"a": [1, 2',
        "nan": '{"a": NaN}',
        "null": "null",
        "list": "[]",
        "text": '"abc"',
        "number": "7",
        "empty": "",
        "blank": " \n\n ",
        "deep": "[" * DEEP + "]" * DEEP,
        "deep-objects": '{"a":' * DEEP + "1" + "}" * DEEP,
        "digits": "9" * 10_000,
        "doubled": '{"model": "a", "model": "b"}',
        "strange": '{"\\ud800": "\\udfff"}',
    }
    for name, text in texts.items():
        (root / f"{name}.json").write_text(text)
    (root / "latin.json").write_bytes('{"a": "ä"}'.encode("latin-1"))
    (root / "utf16.json").write_bytes('{"a": 1}'.encode("utf-16"))


def changed(content: Any, path: str, value: Any) -> Any:
    """A copy of JSON content with one place replaced: `a.b.0` by keys and positions."""
    copy = json.loads(json.dumps(content))
    at, *rest = path.split(".")
    place: Any = copy
    for key in rest:
        place, at = place[int(at) if isinstance(place, list) else at], key
    if value is DELETE:
        del place[at]
    else:
        place[int(at) if isinstance(place, list) else at] = value
    return copy


MODEL_CONFIGS: dict[str, tuple[str, Any]] = {  # name -> what of config.json is replaced by what
    "no-architecture": ("architecture", 7),
    "unknown-architecture": ("architecture", "vit_of_nobody"),
    "list-architecture": ("architecture", ["vit_tiny_patch16_224"]),
    "no-arguments": ("model_args", None),
    "arguments-list": ("model_args", [1, 2]),
    "unknown-argument": ("model_args.frobnicate", 3),
    "depth-100000": ("model_args.depth", 100_000),
    "depth-0": ("model_args.depth", 0),
    "depth-negative": ("model_args.depth", -3),
    "depth-text": ("model_args.depth", "three"),
    "depth-half": ("model_args.depth", 2.5),
    "width-huge": ("model_args.embed_dim", 10**9),
    "width-odd": ("model_args.embed_dim", 25),
    "heads-0": ("model_args.num_heads", 0),
    "patch-0": ("model_args.patch_size", 0),
    "patch-huge": ("model_args.patch_size", 10**9),
    "image-huge": ("model_args.img_size", [10**6, 10**6]),
    "classes-huge": ("model_args.num_classes", 10**12),
    "classes-negative": ("model_args.num_classes", -4),
    "channels-1": ("model_args.in_chans", 1),
    "mean-text": ("pretrained_cfg.mean", "grey"),
    "mean-short": ("pretrained_cfg.mean", [0.5]),
    "mean-null": ("pretrained_cfg.mean", [None, 0.5, 0.5]),
    "mean-huge": ("pretrained_cfg.mean", [1e300, 0.5, 0.5]),
    "std-zero": ("pretrained_cfg.std", [0, 0, 0]),
    "std-negative": ("pretrained_cfg.std", [-1, 0.5, 0.5]),
    "std-short": ("pretrained_cfg.std", []),
    "std-nested": ("pretrained_cfg.std", [[0.5], 0.5, 0.5]),
    "crop-zero": ("pretrained_cfg.crop_pct", 0),
    "crop-negative": ("pretrained_cfg.crop_pct", -1),
    "crop-text": ("pretrained_cfg.crop_pct", "all"),
    "crop-tiny": ("pretrained_cfg.crop_pct", 1e-9),
    "interpolation": ("pretrained_cfg.interpolation", "sharpest"),
    "interpolation-number": ("pretrained_cfg.interpolation", 3),
    "crop-mode": ("pretrained_cfg.crop_mode", "everywhere"),
    "pretrained-list": ("pretrained_cfg", [1]),
    "pretrained-text": ("pretrained_cfg", "abc"),
    "names-number": ("label_names", 4),
    "names-of-numbers": ("label_names", [1, 2, 3, 4]),
    "names-nested": ("label_names", [["ant"], "bee", "cat", "dog"]),
    "names-doubled": ("label_names", ["ant", "ant", "cat", "dog"]),
    "names-null": ("label_names", [None, "bee", "cat", "dog"]),
    "names-by-word": ("label_names", {"a": "ant", "b": "bee", "c": "cat", "d": "dog"}),
}


_TRAIN = '[train]\nimages = "a"\nannotated = "b"\n'
TOMLS = {
    "cut": '[train]\nimages = "a',
    "nothing": "",
    "unknown-table": "[frobnicate]\na = 1\n",
    "unknown-key": '[train]\nfrobnicate = "a"\n',
    "table-number": "train = 7\n",
    "table-list": '[[train]]\nimages = "a"\n',
    "images-number": "[train]\nimages = 7\nannotated = 8\n",
    "images-list": '[train]\nimages = ["a"]\nannotated = "b"\n',
    "images-date": '[train]\nimages = 2020-01-01\nannotated = "b"\n',
    "images-empty": '[train]\nimages = ""\nannotated = ""\n',
    "no-masks": '[train]\nimages = "a"\n',
    "suite-number": _TRAIN + "[suites]\nimagenet = 5\n",
    "suite-unknown": _TRAIN + '[suites]\nfrobnicate = "a"\n',
    "model-number": _TRAIN + "[models]\nDeiT-S = 5\n",
    "model-unknown": _TRAIN + '[models]\nfrobnicate = "a"\n',
    "deep": "a = " + "[" * 5000 + "]" * 5000,
    "name-long": f'[train]\nimages = "{"x" * 5000}"\nannotated = "b"\n',
}


def toml_files(root: Path) -> None:
    """Files for `study --data`, and one that is right."""
    root.mkdir()
    for name, text in TOMLS.items():
        (root / f"{name}.toml").write_text(text)
    (root.parent / "study.toml").write_text(_TRAIN + '[suites]\nimagenet = "c"\n')


def models(root: Path, model: Path) -> None:
    """Model folders, each with one thing wrong."""
    config = json.loads((model / "config.json").read_text())

    def copy(name: str) -> Path:
        (root / name).mkdir(parents=True)
        (root / name / "model.safetensors").symlink_to(model / "model.safetensors")
        return root / name

    for name, (path, value) in MODEL_CONFIGS.items():
        (copy(name) / "config.json").write_text(json.dumps(changed(config, path, value)))
    for file in sorted((root.parent / "json").iterdir()):
        shutil.copy(file, copy(f"json-{file.stem}") / "config.json")
    weights: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda content: b"",
        "cut": lambda content: content[: len(content) // 2],
        "header": lambda content: b"\xff" * 8 + content[8:],
        "pickle": lambda content: PICKLE,
        "garbage": lambda content: content[:200] + b"\x00" * 200 + content[400:],
    }
    for name, change in weights.items():
        folder = root / f"weights-{name}"
        folder.mkdir()
        shutil.copy(model / "config.json", folder)
        content = (model / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(change(content))
    folder = root / "nan"
    folder.mkdir()
    shutil.copy(model / "config.json", folder)
    state = load_file(model / "model.safetensors")
    save_file(
        {key: torch.full_like(value, torch.nan) for key, value in state.items()},
        folder / "model.safetensors",
    )
    for name in ("config.json", "model.safetensors"):
        folder = root / f"fifo-{name.split('.')[0]}"
        folder.mkdir()
        for file in ("config.json", "model.safetensors"):
            if file == name:
                os.mkfifo(folder / file)
            else:
                shutil.copy(model / file, folder)


RECIPES: dict[str, tuple[str, Any]] = {
    "unknown": ("frobnicate", 1),
    "model-number": ("model", 7),
    "model-null": ("model", None),
    "images-list": ("images", ["a"]),
    "epochs-text": ("epochs", "many"),
    "epochs-half": ("epochs", 1.5),
    "epochs-negative": ("epochs", -1),
    "epochs-null": ("epochs", None),
    "shots-true": ("shots", "3"),
    "weights-list": ("weights", [1]),
    "weights-text": ("weights", {"background": "heavy"}),
    "weights-unknown": ("weights", {"frobnicate": 1.0}),
    "rate-list": ("lr", [1e-6]),
    "range-one": ("lr_range", [1]),
    "range-text": ("lr_range", "low high"),
    "range-of-text": ("lr_range", ["a", "b"]),
    "seed-negative": ("seed", -1),
    "objective": ("objective", "frobnicate"),
    "objective-number": ("objective", 5),
    "select": ("select", {}),
    "flip-null": ("flip", None),
    "workers-text": ("workers", "all"),
    "device": ("device", "abacus"),
}
SELECTIONS: dict[str, tuple[str, Any]] = {
    "train-null": ("train", None),
    "train-number": ("train", 3),
    "train-empty": ("train", []),
    "select-empty": ("select", []),
    "check-text": ("check", "abc"),
    "row-number": ("train.0", 3),
    "row-empty": ("train.0", {}),
    "label-text": ("train.0.label", "ant"),
    "label-negative": ("train.0.label", -1),
    "label-high": ("train.0.label", 99),
    "label-half": ("train.0.label", 0.5),
    "image-null": ("train.0.image", None),
    "image-gone": ("check.0.image", "/not/there.png"),
    "mask-number": ("train.0.mask", 4),
}


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(change(file.read_bytes()))


def _content(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], object]:
    return lambda file: torch.save(change(torch.load(file, weights_only=True)), file)


CHECKPOINTS: dict[str, Callable[[Path], object]] = {  # what is done to last.pt
    "empty": _bytes(lambda content: b""),
    "cut": _bytes(lambda content: content[: len(content) // 2]),
    "short": _bytes(lambda content: content[:-100]),
    "text": _bytes(lambda content: b"not a checkpoint"),
    "pickle": _bytes(lambda content: PICKLE),
    "list": _content(lambda c: [1, 2]),
    "no-model": _content(lambda c: {k: v for k, v in c.items() if k != "model"}),
    "no-position": _content(lambda c: {k: v for k, v in c.items() if k != "position"}),
    "position-text": _content(lambda c: {**c, "position": "first"}),
    "position-epoch": _content(lambda c: {**c, "position": {**c["position"], "epoch": "one"}}),
    "model-empty": _content(lambda c: {**c, "model": {}}),
    "optimizer-list": _content(lambda c: {**c, "optimizer": []}),
    "rng-text": _content(lambda c: {**c, "rng": "abc"}),
    "rng-short": _content(lambda c: {**c, "rng": torch.zeros(3, dtype=torch.uint8)}),
}


def runs(root: Path, run: Path) -> None:
    """Run folders of `tune` that were interrupted, each with one thing wrong."""

    def copy(name: str) -> Path:
        shutil.copytree(run, root / name)
        for gone in ("manifest.json", "results.json"):
            (root / name / gone).unlink()
        shutil.rmtree(root / name / "model")
        return root / name

    root.mkdir()
    copy("whole")
    for file, table in (("recipe", RECIPES), ("selection", SELECTIONS)):
        content = json.loads((run / f"{file}.json").read_text())
        for name, (path, value) in table.items():
            text = json.dumps(changed(content, path, value))
            (copy(f"{file}-{name}") / f"{file}.json").write_text(text)
        for bad in sorted((root.parent / "json").iterdir()):
            shutil.copy(bad, copy(f"{file}-json-{bad.stem}") / f"{file}.json")
        (copy(f"{file}-missing") / f"{file}.json").unlink()
        pipe = copy(f"{file}-fifo") / f"{file}.json"
        pipe.unlink()
        os.mkfifo(pipe)
    for name, change in CHECKPOINTS.items():
        change(copy(f"last-{name}") / "checkpoints" / "last.pt")
    (copy("best-cut") / "checkpoints" / "best.safetensors").write_bytes(b"\x00" * 50)
    (copy("best-gone") / "checkpoints" / "best.safetensors").unlink()


def line_files(root: Path) -> dict[str, bytes]:
    """What a killed, full or foreign disk leaves in a file of JSON lines."""
    return {
        "blank": b"\n\n",
        "garbage": b"\x00\x01\x02 garbage\n",
        "latin": '{"image": "ä"}\n'.encode("latin-1"),
        "number": b"5\n",
        "list": b"[1]\n",
        "object": b"{}\n",
        "deep": b"[" * DEEP + b"]" * DEEP + b"\n",
        "nan": b'{"image": "ant/0.png", "label": NaN}\n',
    }


def evaluations(root: Path, proof: Path, probes: Path) -> None:
    """Folders of `evaluate` and `probe`, each with one thing wrong."""
    root.mkdir()

    def copy(name: str) -> Path:
        shutil.copytree(proof, root / name)
        return root / name

    for file in ("results", "settings"):
        content = json.loads((proof / f"{file}.json").read_text())
        for bad in sorted((root.parent / "json").iterdir()):
            shutil.copy(bad, copy(f"{file}-json-{bad.stem}") / f"{file}.json")
        for key in ("suites", "masks", "model") if file == "settings" else ("suites", "model"):
            for name, value in (("number", 7), ("list", ["abc"]), ("gone", DELETE)):
                text = json.dumps(changed(content, key, value))
                (copy(f"{file}-{key}-{name}") / f"{file}.json").write_text(text)
    for name, content in line_files(root).items():
        for record in (copy(f"lines-{name}") / "records").rglob("standard.*.jsonl"):
            record.write_bytes(content)
    for bad in sorted((root.parent / "json").iterdir()):
        shutil.copytree(probes, root / f"probes-json-{bad.stem}")
        shutil.copy(bad, root / f"probes-json-{bad.stem}" / "permutation" / "result.json")


def everything(root: Path, world: Path) -> None:
    """All of it below `root`; `world` has the whole folders that are copied."""
    places(root)
    json_files(root / "json")
    toml_files(root / "toml")
    models(root / "models", world / "model")
    runs(root / "runs", world / "run")
    evaluations(root / "evaluations", world / "proof", world / "probes")
