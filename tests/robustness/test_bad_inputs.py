"""Bad input, kind by kind: one line that starts with `error:`, status 2, nothing written, no hang.

Each row is a whole command with one thing wrong; a server forks a process for it, so that a row
that hangs, crashes or fills memory fails alone. Without REFOCUS_LONG a part of the table is drawn.
"""

from __future__ import annotations

import random
import shlex
from pathlib import Path

import pytest

from refocus.masks.formats import FORMATS
from tests.robustness import hurt
from tests.robustness.dice import LONG, SEED
from tests.robustness.world import World

pytestmark = pytest.mark.slow

COMMANDS = {  # what is right, and quick where a wrong value was taken for a right one
    "explain": "explain {images}/ant/0.png --model {model} --out {out}",
    "masks": "masks {images} --out {out} --from png {masks}",
    "run": "run --model {model} --images {images} --masks {masks} --out {out} --shots 1 "
    "--epochs 1 --most 4",
    "tune": "tune --model {model} --images {images} --masks {masks} --out {out} --epochs 1",
    "evaluate": "evaluate --model {model} --on own={images} --out {out}",
    "shifts": "shifts {images} --masks {masks} --out {out} --kind only-fg",
    "audit": "audit --model {model} --images {images} --masks {masks} --out {out} --most 4",
    "probe": "probe --model {model} --images {images} --kind permutation --most 4 --out {out}",
    "check": "check --model {model} --images {images} --masks {masks} --out {out}",
    "report": "report {proof}",
    "study": "study figure6 --on {images} --model {model} --masks {masks} --out {out} --epochs 1",
    "data": "study figure6 --data {hurt}/study.toml --dry-run",
    "models": "models --out {out}",
    "zero-shot": "zero-shot --model hf:{model} --names a,b --out {out}",
    "app": "app --model {model} --images {images} --masks {masks} --work {out} --port 7861",
    "demo": "demo --out {out}",
}
WHOLE = ("''", "abc", "1.5", "nan", "-1", "0x10", "1e3", "1" + "0" * 400)
REAL = ("''", "abc", "nan", "inf", "-1", "1e999", "1,5")
WORDS = ("''", "frobnicate", "STANDARD ", "../x")
FOLDER = (
    "''",
    "{hurt}/not-there",
    "{hurt}/text.txt",
    "{hurt}/empty",
    "{hurt}/fifo",
    "{hurt}/zero",
    "{hurt}/itself",
    "{hurt}/nowhere",
    "{hurt}/round",
    "x" * 300,
    "~nobody/x",
)
FILE = (
    *(place for place in FOLDER if place != "{hurt}/text.txt"),
    "{hurt}/binary",
    "{hurt}/nothing",
)
NEW = (  # for --out
    "''",
    "{images}",
    "{hurt}/text.txt",
    "{hurt}/text.txt/below",
    "{hurt}/fifo",
    "{hurt}/zero",
    "{hurt}/itself",
    "/proc/1/nothing",
    "x" * 300,
)
MODEL = (
    "''",
    "' '",
    "{hurt}/not-there",
    "{hurt}/empty",
    "{hurt}/fifo",
    "{hurt}/itself",
    "{images}",
    "vit_of_nobody",
    "resnet50",
    "hf:",
    "torchvision:",
    "torchvision:resnet18",
    "py:",
    "py:nowhere:nothing@{model}",
    "py:os:getcwd@{model}",
    "x" * 300,
)
OPTIONS: dict[str, dict[tuple[str, ...], str]] = {  # kind of value -> command -> options
    WHOLE: {
        "run": "--shots --epochs --most --seed --workers",
        "tune": "--epochs --shots --batch-size --classes --seed --workers --lora --last-blocks "
        "--val-images --check-images --lr-decay-every --class-seed",
        "evaluate": "--batch-size --workers --seed --most --faithfulness",
        "shifts": "--workers --seed",
        "audit": "--most --faithfulness --workers --seed",
        "probe": "--most --batch-size --workers --seed",
        "report": "--most --faithfulness --workers --seed",
        "study": "--epochs --classes --val-images --most --maps --workers --seed --seeds",
        "app": "--port",
        "demo": "--seed",
    },
    REAL: {
        "run": "--tolerance",
        "tune": "--lr --lr-decay --weight-decay --flip --tolerance --mask-score --temperature",
        "evaluate": "--mask-score",
        "shifts": "--mask-score",
        "audit": "--mask-score",
        "probe": "--mask-score",
    },
    WORDS: {
        "run": "--objective --device --test --mask-polarity",
        "explain": "--class --device",
        "masks": "--refine --device --orientation --mask-polarity",
        "tune": "--objective --preset --select --protocol --precision --device --weight",
        "evaluate": "--shift --protocol --device --masks --groups --on",
        "shifts": "--kind",
        "audit": "--device --mask-polarity",
        "probe": "--kind --saliency --device --mask-polarity",
        "check": "--mask-polarity",
        "study": "--select --precision --device --shift --lr",
        "data": "--models",
        "app": "--host",
        "demo": "--device",
    },
    FOLDER: {
        "run": "--images --masks",
        "tune": "--images --masks",
        "shifts": "--masks",
        "audit": "--images --masks",
        "check": "--images --masks",
        "probe": "--images",
        "study": "--on --masks",
        "app": "--images",
    },
    FILE: {
        "data": "--data",
        "study": "--config",
        "evaluate": "--mapping --names",
        "tune": "--names",
        "zero-shot": "--templates",
    },
    NEW: {
        "run": "--out",
        "explain": "--out",
        "masks": "--out",
        "tune": "--out",
        "evaluate": "--out",
        "shifts": "--out",
        "audit": "--out",
        "check": "--out",
        "probe": "--out",
        "study": "--out",
        "models": "--out",
        "demo": "--out",
        "app": "--work",
    },
    MODEL: {
        "run": "--model",
        "explain": "--model --against",
        "tune": "--model",
        "evaluate": "--model --against",
        "audit": "--model",
        "check": "--model",
        "probe": "--model",
        "app": "--model",
    },
}


def _with(command: str, option: str, value: str) -> str:
    """The right command with one option replaced, or added."""
    words = COMMANDS[command].split()
    if option in words:
        words[words.index(option) + 1] = value
    else:
        words += [option, value]
    return " ".join(words)


def _options() -> list[str]:
    return [
        _with(command, option, value)
        for values, commands in OPTIONS.items()
        for command, options in commands.items()
        for option in options.split()
        for value in values
    ]


def _arguments() -> list[str]:
    """What stands without an option's name."""
    rows = [
        f"{command} {place} {rest}"
        for command, rest in {
            "explain": "--model {model} --out {out}",
            "masks": "--out {out} --from png {masks}",
            "shifts": "--masks {masks} --out {out}",
            "report": "",
        }.items()
        for place in FOLDER
    ]
    rows += [
        f"masks {{images}} --out {{out}} --from {name} {place}"
        for name in FORMATS
        for place in (FILE if name in ("coco", "boxes", "label-studio", "cvat") else FOLDER)
    ]
    rows += [f"study {name} --on {{images}}" for name in ("''", "figure99", "LIST")]
    rows += [f"tune --resume {place}" for place in FOLDER]
    return rows


USAGE = [
    *(name for name in COMMANDS if name not in ("models", "demo", "data")),
    "frobnicate",
    "--frobnicate",
    "tune --modle {model}",
    "tune --model",
    "explain",
    "tune extra --model {model}",
    "tune --epochs 1 --epochs",
    "probe --kind",
    "masks {images} --out {out} --from png",
    "tune --resume {runs}/whole --epochs 3",
    "tune --model {model} --images {images} --masks {masks} --out {out} --code py:a:b",
    "tune --model {model} --images {images} --masks {masks} --out {out} --lr-range 1 2",
    "tune --model {model} --images {images} --masks {masks} --out {out} --weight background",
    "tune --model {model} --images {images} --masks {masks} --out {out} --weight background=nan",
    "tune --model {model} --images {images} --masks {masks} --out {out} --share 0.5",
    "tune --model {model} --images {images} --masks {masks} --out {out} --lora 2 --last-blocks 1",
    "tune --model {model} --images {masks} --masks {images} --out {out}",
    "run --model {model} --images {images} --masks {masks} --out {out} --test held-out={images}",
    "run --model {model} --images {images} --masks {masks} --out {out} --test a={hurt}/fifo",
    "run --model {model} --images {images} --masks {masks} --out {images}/run",
    "run --model {model} --images {images} --masks {masks} --out {proof}",
    "run --model {model} --images {images} --masks {masks}",
    "evaluate --model {model} --on own --out {out}",
    "evaluate --model {model} --on =x --out {out}",
    "evaluate --model {model} --on ../x={images} --out {out}",
    "evaluate --model {model} --on own={images} own={images} --out {out}",
    "evaluate --model {model} --on own={hurt}/not-there --out {out}",
    "evaluate --model {model} --on own={hurt}/fifo --out {out}",
    "evaluate --model {model} --on imagenet={images} --out {out}",
    "evaluate --model {model} --on cue-conflict={images} --out {out}",
    "evaluate --model {model} --on imagenet-segmentation={hurt}/binary --out {out}",
    "evaluate --model {model} --on imagenet-segmentation={hurt}/fifo --out {out}",
    "evaluate --model {model} --on own={images} --shift all --out {out}",
    "evaluate --model {model} --on own={images} --masks other={masks} --out {out}",
    "evaluate --model {model} --on own={images} --masks own={hurt}/fifo --out {out}",
    "evaluate --model {model} --on own={images} --groups own={hurt}/fifo --out {out}",
    "evaluate --model {model} --on own={images} --groups own={hurt}/binary --out {out}",
    "evaluate --model {model} --on own={images} --out {proof} --resume",
    "report {runs}/whole",
    "report {proof} --on own={images}",
    "report {probes} --masks own={masks}",
    "study figure6 --out {out}",
    "study figure6 --on {images} --data {hurt}/text.txt --out {out}",
    "study figure6 --on {images} --out {out}",
    "study figure6 --on {images} --model {model} --out {out}",
    "study figure6 --on {images} --model {model} --masks {masks} --out {out} --dry-run",
    "app --model {model} --images {images}",
    "app --model {model} --host 1.2.3.4.5",
    "app --model {model} --host ::1",
    "app --model {model} --port 0",
    "app --model {model} --port 99999",
    "zero-shot --model {model} --names a,b --out {out}",
    "zero-shot --model hf:{model} --names a --out {out}",
    "zero-shot --model hf:{model} --names a,a --out {out}",
]


def _contents() -> list[str]:
    """Files of the right kind with wrong content, made by `hurt`."""
    json_files = ["cut", "nan", "null", "list", "text", "number", "empty", "deep", "digits"]
    json_files += ["deep-objects", "latin", "utf16"]
    models = [*hurt.MODEL_CONFIGS, *(f"json-{name}" for name in json_files)]
    models += [f"weights-{name}" for name in ("empty", "cut", "header", "pickle")]
    models += ["nan", "fifo-config", "fifo-model"]
    runs = [f"recipe-{name}" for name in hurt.RECIPES]
    runs += [f"selection-{name}" for name in hurt.SELECTIONS]
    runs += [f"{file}-json-{name}" for file in ("recipe", "selection") for name in json_files]
    runs += ["recipe-missing", "selection-missing", "best-cut", "best-gone"]
    runs += [f"last-{name}" for name in hurt.CHECKPOINTS]
    evaluations = [f"{file}-json-{n}" for file in ("results", "settings") for n in json_files]
    evaluations += [f"probes-json-{name}" for name in json_files]
    on = "--on own={images} --out {out}"
    jsons = [f"{{hurt}}/json/{name}.json" for name in json_files]
    return [
        *(f"evaluate --model {{hurt}}/models/{name} {on}" for name in models),
        *(f"tune --resume {{runs}}/{name}" for name in runs),
        *(f"report {{evaluations}}/{name}" for name in evaluations),
        *(f"evaluate --model {{model}} {on} --mapping {file}" for file in jsons),
        *(f"masks {{images}} --out {{out}} --from coco {file}" for file in jsons),
        *(f"study figure6 --data {file} --dry-run" for file in jsons),
        *(f"study figure6 --data {{hurt}}/toml/{name}.toml --dry-run" for name in hurt.TOMLS),
    ]


KINDS = {"options": _options(), "arguments": _arguments(), "usage": USAGE, "contents": _contents()}
EVERY = sorted({(kind, row) for kind, rows in KINDS.items() for row in rows})
ROWS = EVERY if LONG else sorted(random.Random(SEED).sample(EVERY, 160))


@pytest.fixture(scope="module")
def hurtful(world: World) -> World:
    hurt.everything(world.root / "hurt", world.root)
    return world


def test_the_table_is_long() -> None:
    print(f"seed {SEED}: {len(ROWS)} of {len(EVERY)} rows")
    assert len(EVERY) >= 1500


@pytest.mark.parametrize(("kind", "row"), ROWS)
def test_one_line_status_2_and_nothing_written(
    kind: str, row: str, hurtful: World, tmp_path: Path
) -> None:
    where = hurtful.root / "hurt"
    places = {**hurtful.places, "out": tmp_path / "out", "hurt": where}
    places |= {name: where / name for name in ("runs", "evaluations")}
    before = hurtful.snapshot()
    done = hurtful.door.run(*shlex.split(row.format(**places)), cwd=tmp_path, timeout=20)
    assert not done.timed_out, f"hangs: {done}"
    assert done.status == 2, str(done)
    assert len(done.errors) == 1, str(done)
    others = [line for line in done.err.splitlines() if line.strip() and line not in done.errors]
    others = [line for line in others if "━" not in line]  # how far it came
    assert all(line.startswith(("notice:", "warning:")) for line in others), str(done)
    assert hurtful.snapshot() == before
    assert list(tmp_path.iterdir()) == []
