"""How cost grows with work: images, classes, tokens and processes, for each command by itself.

    python benchmarks/growth.py [--only images classes tokens processes report] [--images 100 1000
    3000 10000] [--threads 1] [--chromium PATH]

Every row is a fresh process, so that its peak memory is its own: `tune` (one epoch of four images a
class), `evaluate` (answers and maps), `audit` (of all images), `masks` (found with a head that is
learned) and `report` (the page of an evaluation of two models). Model, images and masks are tiny
and made in a temporary folder; images are of few pictures. Seconds are those of all processors
together (user and system), which another job on the machine hardly changes; `--only processes` adds
the wall time, which is worth something on an idle machine alone.

The exponent of time is fitted by least squares to the logarithms of what comes on top of the first
row (its seconds and its work taken off, so that starting up does not count): 1 is linear. The
exponent of memory is that of the peak itself, and beside it stands what a further unit of work
costs on average.

`--only report` measures one page, of 50 000 records and 1000 classes: its size, and how long a
browser (chromium without a screen) takes to open and draw it, beside a blank page.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

COMMANDS = {
    "tune": "tune --model {model} --images {images} --masks {masks} --epochs 1 --classes 2 "
    "--shots 4 --fewer --device cpu --out {out}",
    "tune --recompute": "tune --model {model} --images {images} --masks {masks} --epochs 1 "
    "--classes 2 --shots 4 --fewer --recompute --device cpu --out {out}",
    "evaluate": "evaluate --model {model} --on own={images} --masks own={masks} --device cpu "
    "--out {out}",
    "audit": "audit --model {model} --images {images} --masks {masks} --most 1000000 --device cpu "
    "--out {out}",
    "masks": "masks {images} --backbone {model} --size 64 --device cpu --out {out}",
    "report": "report {told} --device cpu",
}
_OWN = "own"  # the name of the test set
_KINDS = ("mixed-same", "mixed-rand", "only-fg", "only-bg")  # shifts of an evaluation
_DIFFERENT = 24  # pictures; all others are these in files of their own


# --- what is measured -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """What a process took. seconds: of all processors. peak: MiB, of the largest process."""

    seconds: float
    wall: float
    peak: float


def spent(words: Sequence[str], processes: int = 0) -> Spent:
    """Run `refocus WORDS` in a process of its own, or in so many of torchrun's."""
    here = [sys.executable, __file__, "--inside", *words]
    if processes:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        here = [sys.executable, *torchrun, str(processes), __file__, "--inside", *words]
    with tempfile.TemporaryDirectory() as folder:
        begun, told = time.perf_counter(), Path(folder)
        done = subprocess.run(
            here, check=False, env={**os.environ, "GROWTH": folder}, capture_output=True, text=True
        )
        wall = time.perf_counter() - begun
        if done.returncode:
            raise SystemExit(f"refocus {' '.join(words)}\n{done.stderr[-2000:]}")
        found = [json.loads(f.read_text(encoding="utf-8")) for f in told.iterdir()]
    return Spent(sum(f["seconds"] for f in found), wall, max(f["peak"] for f in found))


def inside(words: list[str]) -> None:
    """In the fresh process: be the command, and leave what it took in the folder $GROWTH."""
    from refocus.cli import main

    sys.argv = ["refocus", *words]
    try:
        main.main()
    finally:
        used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        seconds = sum(u.ru_utime + u.ru_stime for u in used)
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
        file = Path(os.environ["GROWTH"], f"{os.getpid()}.json")
        file.write_text(json.dumps({"seconds": seconds, "peak": peak}), encoding="utf-8")


def exponent(work: Sequence[float], cost: Sequence[float]) -> float:
    """Of a power law, least squares on logarithms."""
    return float(np.polyfit(np.log(work), np.log(np.maximum(cost, 1e-9)), 1)[0])


def on_top(work: Sequence[float], cost: Sequence[float]) -> str:
    """The exponent of what comes on top of the first row, which holds what any work costs.

    Rows with less than half a second on top are noise; none where fewer than two are left.
    """
    rows = [(w - work[0], c - cost[0]) for w, c in zip(work, cost, strict=True)]
    rows = [(w, c) for w, c in rows if c >= 0.5]
    return f"{exponent(*zip(*rows, strict=True)):.2f}" if len(rows) > 1 else "-"


# --- what it is measured on -----------------------------------------------------------------------


def tiny_model(folder: Path, *, classes: int = 10, side: int = 32, seed: int = 0) -> Path:
    """A ViT of random weights with patches of 8 pixels; its classes are c0000, c0001, ..."""
    import timm
    import torch

    from refocus.vit import loading

    torch.manual_seed(seed)
    config = {"input_size": (3, side, side), "crop_pct": 1.0, "label_names": names(classes)}
    sizes = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 1, "num_classes": classes}
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=side, pretrained_cfg_overlay=config, **sizes
    )
    torch.nn.init.normal_(model.head.weight)  # so that it gives several answers
    loading.save(model.eval(), folder)
    return folder


def names(classes: int) -> list[str]:
    """Names of so many classes."""
    return [f"c{number:04d}" for number in range(classes)]


def pictures(root: Path, count: int, *, classes: int = 10, side: int = 64) -> Path:
    """Folders `images` and `masks` of so many images, of each class as many."""
    from PIL import Image

    rng, files = np.random.default_rng(0), []
    root.mkdir(parents=True)
    for number in range(_DIFFERENT):
        small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(small).resize((side, side))).copy()
        top, left = (int(x) for x in rng.integers(side // 8, side // 2, 2))
        inside = slice(top, top + side // 3), slice(left, left + side // 3)
        mask = np.zeros((side, side), np.uint8)
        pixels[inside], mask[inside] = rng.integers(0, 256, 3), 255
        files.append((root / f"{number}.png", root / f"{number}-mask.png"))
        Image.fromarray(pixels).save(files[-1][0])
        Image.fromarray(mask).save(files[-1][1])
    for label, name in enumerate(names(classes)):
        for kind in ("images", "masks"):
            (root / kind / name).mkdir(parents=True)
        for number in range(count // classes):
            image, mask = files[(label + number) % _DIFFERENT]
            own = f"{name}/{number}".encode()  # after the picture's end: a copy would be left out
            (root / "images" / name / f"{number:05d}.png").write_bytes(image.read_bytes() + own)
            (root / "masks" / name / f"{number:05d}.png").hardlink_to(mask)
    return root


def told(out: Path, root: Path, models: dict[str, str]) -> Path:
    """The evaluation of two models on `root`, with answers that are drawn and not computed.

    Records of what was answered are kept, so the command itself makes the rest of them.
    """
    from refocus import locks, outputs
    from refocus.data.shifts import shifts
    from refocus.evaluation.plan import Plan, decisive
    from refocus.evaluation.prove import evaluate_suites
    from refocus.vit.loading import load_models, pick_device

    plan = Plan({"own": root / "images"}, {"own": root / "masks"}, _KINDS, quiet=True, device="cpu")
    loaded = load_models(models["model"], models["against"], pick_device("cpu"))
    folder = outputs.resumable(out, True, decisive(models, loaded, plan))
    records = folder / "records" / "own"
    records.mkdir(parents=True)
    tests = plan.open(_OWN, loaded["model"])
    rng = np.random.default_rng(0)
    for which, right in (("model", 0.8), ("against", 0.7)):
        drawn = partial(_answers, rng, len(tests.samples), len(names_in(root)))
        images = [s.image.relative_to(tests.root).as_posix() for s in tests.samples]
        labels = np.array([s.label for s in tests.samples])
        _write(records / f"standard.{which}.jsonl", images, drawn(labels, right))
        _write(records / f"maps.{which}.jsonl", images, _maps(rng, len(images)))
        for kind, lost in zip(_KINDS, (0.05, 0.2, 0.1, 0.5), strict=True):
            with_donor = {s.image for s in shifts(tests.samples, kind, 0)[0][1]}
            rows = drawn(labels, right - lost)
            some = [i for i, s in enumerate(tests.samples) if s.image in with_donor]
            kept = [images[i] for i in some], [rows[i] for i in some]
            _write(records / f"{kind}.{which}.jsonl", *kept)
    locks.release(folder)
    evaluate_suites(models["model"], plan, out, against=models["against"])
    return out


def names_in(root: Path) -> list[str]:
    """The class folders of `pictures`."""
    return sorted(folder.name for folder in (root / "images").iterdir())


def _answers(
    rng: np.random.Generator, count: int, classes: int, labels: np.ndarray, right: float
) -> list[dict[str, Any]]:
    guesses = rng.integers(0, classes, (count, min(5, classes)))
    guesses[:, 0] = np.where(rng.random(count) < right, labels, guesses[:, 0])
    confidence, true = rng.uniform(0.3, 1, count).round(6), rng.uniform(0, 1, count).round(6)
    columns = zip(labels.tolist(), guesses.tolist(), confidence, true, strict=True)
    return [
        {"label": y, "top5": g, "confidence": float(c), "true_confidence": float(t)}
        for y, g, c, t in columns
    ]


def _maps(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    shares, counts = rng.random(count), rng.random((count, 7))
    return [
        {"background_share": float(s), "pointing": float(s > 0.5), "segmentation": [1.0, *c[1:]]}
        for s, c in zip(shares, counts.tolist(), strict=True)
    ]


def _write(file: Path, images: list[str], rows: list[dict[str, Any]]) -> None:
    from refocus.records import write_line

    with file.open("w", encoding="utf-8") as sink:
        for image, row in zip(images, rows, strict=True):
            write_line(sink, {"image": image, **row})


# --- one table for each kind of work --------------------------------------------------------------

Made = tuple[float, dict[str, Path], str]  # work, what a command is given, its further options


def images(sizes: Sequence[int], root: Path, *, report: bool) -> list[Made]:
    """More images of ten classes."""
    models = [tiny_model(root / f"model-{seed}", seed=seed) for seed in range(1 + report)]
    return [_given(n, pictures(root / str(n), n), *models) for n in sizes]


def classes(sizes: Sequence[int], root: Path, *, report: bool) -> list[Made]:
    """More classes of as many images in all."""
    total, found = 2 * max(sizes), []
    for n in sizes:
        models = [
            tiny_model(root / f"{n}-{seed}", classes=n, seed=seed) for seed in range(1 + report)
        ]
        found.append(_given(n, pictures(root / str(n), total, classes=n), *models))
    return found


def tokens(sizes: Sequence[int], root: Path) -> list[Made]:
    """More tokens of 16 images; the batch of an evaluation is as it is by default."""
    found = []
    for n in sizes:
        side = 8 * round(n**0.5)
        model = tiny_model(root / f"model-{n}", classes=2, side=side)
        place = pictures(root / str(n), 16, classes=2, side=side)
        work, given, _ = _given(n, place, model)
        found.append((work, given, f"--size {side}"))
    return found


def _given(work: int, root: Path, model: Path, other: Path | None = None) -> Made:
    given = {"model": model, "images": root / "images", "masks": root / "masks"}
    if other is not None:
        refs = {"model": str(model), "against": str(other)}
        given["told"] = told(root / "told", root, refs)
    return float(work), given, ""


def table(title: str, unit: str, made: list[Made], commands: Sequence[str]) -> None:
    """Seconds and MiB of each command for each amount of work, and the exponents."""
    work = [amount for amount, _, _ in made]
    print(f"\n{title}\n\n| command | {' | '.join(f'{w:.0f} {unit}' for w in work)} ", end="")
    print(f"| exponent of time | of memory | a further one |\n|---{'|---' * (len(work) + 3)}|")
    for name in commands:
        rows = []
        for _, given, more in made:
            with tempfile.TemporaryDirectory() as out:
                words = COMMANDS[name].format(**given, out=Path(out, "out")).split()
                if more and name == "masks":
                    words[words.index("--size") : words.index("--size") + 2] = more.split()
                rows.append(spent(words))
        seconds, peaks = [r.seconds for r in rows], [r.peak for r in rows]
        each = 1024 * (peaks[-1] - peaks[0]) / (work[-1] - work[0])
        cells = [f"{s:.1f} s, {p:.0f} MiB" for s, p in zip(seconds, peaks, strict=True)]
        cells += [on_top(work, seconds), f"{exponent(work, peaks):.2f}", f"{each:.1f} KiB"]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


def processes(counts: Sequence[int], root: Path, amount: int) -> None:
    """The same work by one process and by several of torchrun's."""
    (_, given, _) = _given(amount, pictures(root / "p", amount), tiny_model(root / "pm"))
    head = " | ".join(f"{n} processes: processor, wall, largest" for n in counts)
    print(f"\nProcesses, {amount} images\n\n| command | {head} |\n|---{'|---' * len(counts)}|")
    for name in ("tune", "evaluate", "audit", "masks"):
        cells = []
        for count in counts:
            with tempfile.TemporaryDirectory() as out:
                words = COMMANDS[name].format(**given, out=Path(out, "out")).split()
                took = spent(words, processes=count)
            cells.append(f"{took.seconds:.1f} s, {took.wall:.1f} s, {took.peak:.0f} MiB")
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


# --- a large report -------------------------------------------------------------------------------


def large_report(root: Path, chromium: str, rounds: int, records: int, number: int) -> None:
    """Size of the page of so many records and classes, and seconds until a browser shows it."""
    models = [tiny_model(root / f"r{seed}", classes=number, seed=seed) for seed in range(2)]
    count = records // (2 * (1 + len(_KINDS)))
    _, given, _ = _given(count, pictures(root / "r", count, classes=number), *models)
    took = spent(COMMANDS["report"].format(**given).split())
    page = given["told"] / "report.html"
    print(
        f"\nReport of {records} records ({count} images) and {number} classes: made in "
        f"{took.seconds:.1f} s with {took.peak:.0f} MiB; {page.stat().st_size / 2**20:.2f} MiB"
    )
    if chromium:
        blank = root / "blank.html"
        blank.write_text("<!doctype html><title>blank</title>", encoding="utf-8")
        for what, file in (("blank page", blank), ("report", page)):
            shown = [_opened(chromium, file) for _ in range(rounds)]
            processor, wall = (median(column) for column in zip(*shown, strict=True))
            print(f"{what}: {processor:.2f} s of processors, {wall:.2f} s (medians of {rounds})")


def _opened(chromium: str, page: Path) -> tuple[float, float]:
    """Seconds of all processors, and wall seconds, until a page is drawn and chromium has ended."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update"]
    with tempfile.TemporaryDirectory() as folder:
        shot = [f"--user-data-dir={folder}/profile", f"--screenshot={folder}/shot.png"]
        words = [chromium, *options, *shot, "--window-size=1280,900", page.as_uri()]
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(words, check=True, capture_output=True, timeout=300)
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, wall


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("images", "classes", "tokens", "processes", "report")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 3000, 10_000])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 300, 1000])
    parser.add_argument("--tokens", type=int, nargs="+", default=[145, 577, 1600, 4096])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chromium", default="", help="opens the large report, where given")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    import measure

    print(measure.machine())
    with tempfile.TemporaryDirectory() as place:
        root, made = Path(place), dict[str, tuple[str, Callable[[], list[Made]]]]()
        report = "report" in args.commands
        made["images"] = ("images", lambda: images(args.images, root / "i", report=report))
        made["classes"] = ("classes", lambda: classes(args.classes, root / "c", report=report))
        made["tokens"] = ("tokens", lambda: tokens(args.tokens, root / "t"))
        for part, (unit, make) in made.items():
            if part in args.only:
                other = "report" if part == "tokens" else "tune --recompute"  # which says nothing
                commands = [c for c in args.commands if c != other]
                table(part.capitalize(), unit, make(), commands)
        if "processes" in args.only:
            processes(args.processes, root, min(1000, max(args.images)))
        if "report" in args.only:
            large_report(root, args.chromium, args.rounds, args.records, max(args.classes))


if __name__ == "__main__":
    main()
