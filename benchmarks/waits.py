"""What people wait for, in units of the same machine and minutes.

    python benchmarks/waits.py --model VIT_SMALL_PLANTED --images PLANTED/test_same/images \
        --masks PLANTED/test_same/masks [--most 40] [--only start steps commands] \
        [--commands masks audit tune report probe] [--busy]

`start`: seconds until a command's help is there, beside a Python that does nothing and one that
    imports torch and timm; until the first line of a command's work, where it is ended; and of
    `explain` of one image, which is a first result.
`steps`: a step of each objective in steps of plain fine-tuning on the same images, batch 8, fp32
    and bf16.
`commands`: the time of `masks`, `audit`, `tune` (one epoch, an image a class, its check for
    harm), `report` and `probe` divided by that of one forward pass (batch 32) of each of the
    images; beside it how many forward passes of the model's class they make, and the share of the
    time that these take (backward passes are in neither). The floor is what the same matrix
    products and convolutions, backward passes included, would take at the speed of a forward pass.

--busy: count seconds of the processor, as other work makes those on the wall meaningless.
"""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import measure
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import refocus
from refocus import MaskSettings, Recipe, ReportSettings
from refocus.vit.classes import class_count
from refocus.vit.loading import pick_device, preprocessing

COMMANDS = ["run", "audit", "masks", "tune", "report", "evaluate", "probe", "explain", "models"]
OBJECTIVES = ("relevance", "energy", "swap", "refocus", "consistency")


# --- how long until something is there ------------------------------------------------------------


def start(rounds: int, ref: str, images: Path, masks: Path) -> None:
    python, command = [sys.executable, "-c"], [sys.executable, "-m", "refocus"]
    calls = {
        "python -c pass": [*python, "pass"],
        "python -c 'import torch, timm'": [*python, "import torch, timm"],
        **{f"refocus {c} --help": [*command, c, "--help"] for c in COMMANDS},
    }
    run = {name: partial(_quiet, call) for name, call in calls.items()}
    data = ["--model", ref, "--images", str(images), "--masks", str(masks)]
    work = {
        "run": data,
        "audit": data,
        "masks": [str(images)],
        "tune": data,
        "evaluate": ["--on", f"test={images}", "--model", ref],
        "probe": ["run", "--kind", "shapes", *data],
    }
    for name, given in work.items():
        run[f"refocus {name}, first line"] = partial(_first_line, [*command, name, *given])
    one = str(min(path for path in images.rglob("*") if path.is_file()))
    run["refocus explain, one image"] = partial(
        _into_new, _quiet, [*command, "explain", one, "--model", ref]
    )
    spent = measure.interleaved(run, rounds)
    print("| | seconds, median | of importing torch and timm |\n|---|---|---|")
    for name in run:
        ratio = measure.ratio(spent, name, "python -c 'import torch, timm'")[0]
        print(f"| `{name}` | {sorted(spent[name])[rounds // 2]:.2f} | {ratio:.2f} |", flush=True)


def _quiet(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _first_line(command: list[str]) -> None:
    """Until the command says anything; then it is ended."""
    _into_new(_say, command)


def _into_new(call: Callable[[list[str]], None], command: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        call([*command, "--out", str(Path(folder, "out"))])


def _say(command: list[str]) -> None:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, **streams) as process:  # type: ignore[call-overload]
        said = process.stdout.readline()
        process.kill()
    if not said or said.startswith(b"error"):
        raise SystemExit(f"{' '.join(command)}: said {said!r}")


# --- a step ---------------------------------------------------------------------------------------


def steps(ref: str, rounds: int, names: Sequence[str]) -> None:
    print("| objective | fp32 | bf16 | bf16 in plain fp32 steps |\n|---|---|---|---|")
    spent = measure.interleaved(_steps(ref, ("finetune", *names)), rounds)
    for name in ("finetune", *names):
        ratios = (
            measure.ratio(spent, name, "finetune"),
            measure.ratio(spent, f"{name}, bf16", "finetune, bf16"),
            measure.ratio(spent, f"{name}, bf16", "finetune"),
        )
        cells = ["{:.2f} ({:.2f} to {:.2f})".format(*ratio) for ratio in ratios]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


def _steps(ref: str, names: Sequence[str]) -> dict[str, Callable[[], Any]]:
    torch.manual_seed(0)
    model, original = refocus.load(ref).train(), refocus.load(ref)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-6)
    size = preprocessing(model)["input_size"]
    masks = torch.zeros(8, 1, *size[1:])
    masks[:, :, size[1] // 4 : -size[1] // 4, size[2] // 4 : -size[2] // 4] = 1
    batch = torch.randn(8, *size), masks, torch.arange(8) % class_count(model)
    found: dict[str, Callable[[], Any]] = {}
    for name in names:
        read = {"original": original} if name == "consistency" else {}
        step = refocus.objective(name, **read)
        for bf16 in (False, True):
            title = f"{name}, bf16" if bf16 else name
            found[title] = partial(_step, step, model, optimizer, batch, bf16)
    return found


def _step(step: Any, model: nn.Module, optimizer: Any, batch: Any, bf16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = step(model, *batch)["loss"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# --- a command ------------------------------------------------------------------------------------


@dataclass
class Network:
    """Images that went forward through a network of one kind, and seconds in it."""

    images: int = 0
    seconds: float = 0.0


@contextmanager
def watched(kind: type[nn.Module]) -> Iterator[Network]:
    """Count what goes through every network of this class (backward passes are not counted)."""
    found, genuine = Network(), kind.forward

    def forward(self: nn.Module, images: torch.Tensor, *more: Any, **named: Any) -> Any:
        begun = measure.clock()
        try:
            return genuine(self, images, *more, **named)
        finally:
            if images.is_cuda:
                torch.cuda.synchronize()
            found.seconds += measure.clock() - begun
            found.images += len(images)

    kind.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        kind.forward = genuine  # type: ignore[method-assign]


def commands(ref: str, images: Path, masks: Path, most: int, names: Sequence[str]) -> None:
    model = refocus.load(ref)
    each = _forward(model)
    batch = torch.randn(1, *preprocessing(model)["input_size"])
    with torch.inference_mode(), Products() as products:
        model(batch)
    work = products.get_total_flops()
    print(f"one forward pass of an image: {1000 * each:.1f} ms\n")
    head = ["images", "forward passes of them", "of which made", "in the network", "floor"]
    print(f"| command | {' | '.join(head)} |\n|{'---|' * (len(head) + 1)}")
    with tempfile.TemporaryDirectory() as folder:
        files = _few(images, masks, most, Path(folder))
        timed, counted = (_calls(ref, *files, Path(folder, way)) for way in ("timed", "counted"))
        for name in names:
            begun = measure.clock()
            with watched(type(model)) as network:
                timed[name]()
            seconds = measure.clock() - begun
            print(
                f"| `{name}` | {most} | {seconds / each / most:.1f} | {network.images / most:.1f} "
                f"| {100 * network.seconds / seconds:.0f} %",
                end="",
                flush=True,
            )
            with Products() as products:  # which takes time
                counted[name]()
            print(f" | {products.get_total_flops() / work / most:.1f} |", flush=True)


class Products(FlopCounterMode):
    """As torch counts them, in all: its hooks on modules refuse gradients of an input."""

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker = _NoTracker()  # type: ignore[assignment]


class _NoTracker(AbstractContextManager[None]):
    parents = frozenset({"Global"})

    def __exit__(self, *error: object) -> None:
        pass


def _forward(model: nn.Module, rounds: int = 7) -> float:
    """Seconds of an image in a batch of 32, the median; on the device that the commands choose."""
    device = pick_device("auto")
    model = copy.deepcopy(model).to(device)
    batch = torch.randn(32, *preprocessing(model)["input_size"], device=device)
    with torch.inference_mode():
        run = {"forward": lambda: model(batch).sum().item()}  # which waits for a GPU
        spent = measure.interleaved(run, rounds)["forward"]
    return sorted(spent)[rounds // 2] / len(batch)


def _calls(
    ref: str, files: tuple[Path, Path], others: tuple[Path, Path], out: Path
) -> dict[str, Callable[[], Any]]:
    """Command -> the call; in this order. The report is of images that did not tune."""
    images, masks = files
    recipe = Recipe(model=ref, images=str(images), masks=str(masks), epochs=1, shots=1, fewer=True)
    report = ReportSettings({"test": str(others[0])}, {"test": str(others[1])})
    return {
        "masks": partial(refocus.find_masks, images, out / "found", MaskSettings()),
        "audit": partial(refocus.audit, ref, images, out / "audit", masks=masks),
        "tune": partial(refocus.tune, recipe, out / "run", progress=False),
        "report": partial(refocus.report, out / "run", report),
        "probe": partial(refocus.probe, ref, out / "probes", images=images),
    }


def _few(images: Path, masks: Path, most: int, out: Path) -> list[tuple[Path, Path]]:
    """Links to so many images and to their masks, as many of each class, and to as many others."""
    classes = sorted(folder for folder in images.iterdir() if folder.is_dir())
    each = most // len(classes)
    for number in range(2):
        for folder in classes:
            for image in sorted(folder.iterdir())[number * each :][:each]:
                mask = masks / folder.name / f"{image.stem}.png"
                for file, kind in ((image, "images"), (mask, "masks")):
                    link = out / f"{number}" / kind / folder.name / file.name
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(file.resolve())
    return [(out / f"{number}" / "images", out / f"{number}" / "masks") for number in range(2)]


def main() -> None:
    parser = measure.parser_on_masks(__doc__)
    parser.add_argument("--most", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parts = ("start", "steps", "commands")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=OBJECTIVES)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    named = ("masks", "audit", "tune", "report", "probe")
    parser.add_argument("--commands", nargs="+", choices=named, default=named, help="in this order")
    parser.add_argument("--busy", action="store_true")
    args = parser.parse_args()
    if args.busy:
        measure.clock = measure.processor
    torch.set_num_threads(args.threads)
    print(f"{measure.machine()}\n")
    if "start" in args.only:
        start(args.rounds, args.model, args.images, args.masks)
    if "steps" in args.only:
        steps(args.model, args.rounds, args.objectives)
    if "commands" in args.only:
        commands(args.model, args.images, args.masks, args.most, args.commands)


if __name__ == "__main__":
    main()
