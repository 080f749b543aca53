from __future__ import annotations

import subprocess
import sys
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evidence import cell as one_cell
from evidence import field as module
from evidence.field import best_rate, main, readings_by_rate
from evidence.methods import METHODS, passes_per_image, replaced
from evidence.rows import (
    END,
    READINGS,
    SELECTED,
    WISE,
    Answers,
    Cell,
    Development,
    Passes,
    Row,
    append,
    read,
    unpack,
)
from refocus import load, objective
from tests.evidence.makers import options, planted
from tests.makers import Build, masked_batch

CELL = Cell("search", "planted", "refocus", "steps", 3, "all", 1000, 1e-5)


def a_row(cell: Cell, scores: tuple[float, ...], shares: dict[str, float] | None = None) -> Row:
    development = [
        Development(share, score, score)
        for share, score in zip((0.0, 0.5, 1.0), scores, strict=True)
    ]
    default = {END: 1.0, WISE: 0.5, SELECTED: 0.5}
    return Row(
        cell, "m", {}, "u", 1, [], 1, Passes(1, 8, 8, 8), 1.0, 1.0, development, shares or default
    )


@pytest.mark.slow
def test_a_field_is_searched_and_then_read(model_folder: Path, tmp_path: Path) -> None:
    root, out = planted(tmp_path / "planted"), tmp_path / "out"
    methods = ("--methods", "finetune", "erm", "base")
    hidden = {root / name: tmp_path / name for name in ("test_same", "test_shuffled")}
    for test, aside in hidden.items():  # a search must not need them
        test.rename(aside)
    main(options("search", root, model_folder, out, *methods))
    for test, aside in hidden.items():
        aside.rename(test)
    searched = read(out / "rows.jsonl")
    counts = Counter(r.cell.method for r in searched)
    assert counts.keys() == {"finetune", "erm"}
    assert all(4 <= n <= 8 for n in counts.values())
    assert not any(r.tests for r in searched)
    assert not list((out / "runs").glob("*"))
    main(options("final", root, model_folder, out, *methods))
    rows = [r for r in read(out / "rows.jsonl") if r.cell.phase == "final"]
    for method in ("finetune", "erm"):
        for draw in (0, 1):
            found = [r for r in rows if (r.cell.method, r.cell.draw) == (method, draw)]
            right = [name for r in found for name in r.tests["test_shuffled"].right]
            assert sorted(right) == sorted(READINGS)
    (base,) = (r for r in rows if r.cell.method == "base")
    answers = base.tests["test_same"]
    assert answers.classes == dict.fromkeys(["ant", "bee", "cat", "dog"], 2)
    assert len(unpack(answers.right[END], 8)) == 8
    finetuned = next(r for r in rows if r.cell.method == "finetune")
    assert finetuned.used_count == 8
    assert finetuned.passes.training == finetuned.steps * 8
    assert finetuned.passes.trained == finetuned.passes.training + 2  # one step is tried first


def test_an_interrupted_field_goes_on_where_it_stopped(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = planted(tmp_path / "planted"), tmp_path / "out"
    arguments = options("search", root, model_folder, out, "--methods", "erm")
    done = []

    def run(cell: Cell, *_: object) -> Row:
        if len(done) == 2 and not interrupted:
            raise KeyboardInterrupt
        done.append(cell.rate)
        return a_row(cell, (1.0, 2.0, 3.0 - abs(cell.rate - 1e-5)))

    interrupted: list[bool] = []
    monkeypatch.setattr(module, "run", run)
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    with (out / "rows.jsonl").open("a") as file:
        file.write('{"cell": {"phase')  # a line that a crash cut off
    interrupted.append(True)
    main(arguments)
    assert len(done) == len(set(done)) == len(read(out / "rows.jsonl"))
    main(arguments)
    assert len(done) == len(set(done))


def test_a_search_goes_on_while_the_best_rate_lies_at_an_end(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = planted(tmp_path / "planted")

    def rising(cell: Cell, *_: object) -> Row:
        return a_row(cell, (0.0, 1e6 * cell.rate, 1e6 * cell.rate))

    def inside(cell: Cell, *_: object) -> Row:
        return a_row(cell, (0.0, 0.0, float(cell.rate == 1e-5)), dict.fromkeys(READINGS, 1.0))

    monkeypatch.setattr(module, "run", rising)
    main(options("search", root, model_folder, tmp_path / "up", "--methods", "erm"))
    rates = [r.cell.rate for r in read(tmp_path / "up" / "rows.jsonl")]
    assert rates == METHODS["erm"].rates(-1, 4)
    monkeypatch.setattr(module, "run", inside)
    main(options("search", root, model_folder, tmp_path / "in", "--methods", "erm"))
    assert len(read(tmp_path / "in" / "rows.jsonl")) == 4


def test_each_reading_has_its_own_best_rate_and_ties_go_to_the_lower() -> None:
    scores = {1e-6: (50.0, 60.0, 70.0), 1e-5: (50.0, 80.0, 70.0), 1e-4: (50.0, 55.0, 20.0)}
    rows = [a_row(replace(CELL, rate=rate), found) for rate, found in scores.items()]
    diverged = replace(a_row(replace(CELL, rate=1e-3), (0, 0, 0)), development=[], shares={})
    other = a_row(replace(CELL, rate=1.0, data="bar"), (99.0, 99.0, 99.0))
    rows += [diverged, other]
    wanted = replace(CELL, phase="final", draw=3, images=10)
    assert best_rate(rows, wanted, END) == 1e-6
    assert best_rate(rows, wanted, WISE) == 1e-5
    assert readings_by_rate(wanted, rows) == {1e-6: [END], 1e-5: [WISE, SELECTED]}


def test_a_number_of_images_that_was_not_searched_takes_the_nearest() -> None:
    rows = [
        a_row(replace(CELL, images=images, rate=rate), (0.0, score, score))
        for images, rate, score in (
            (3, 1e-6, 9.0),
            (3, 1e-5, 1.0),
            (50, 1e-6, 1.0),
            (50, 1e-5, 9.0),
        )
    ]
    assert best_rate(rows, replace(CELL, images=10), END) == 1e-6
    assert best_rate(rows, replace(CELL, images=40), END) == 1e-5
    assert best_rate(rows, replace(CELL, images=0), END) == 1e-5


def test_final_needs_a_search(model_folder: Path, tmp_path: Path) -> None:
    root = planted(tmp_path / "planted")
    with pytest.raises(SystemExit, match="no rate was searched"):
        main(options("final", root, model_folder, tmp_path / "out", "--methods", "erm"))


def test_a_method_may_take_its_default_or_a_given_rate(model_folder: Path, tmp_path: Path) -> None:
    root, out = planted(tmp_path / "planted"), tmp_path / "out"
    given = ("--methods", "erm", "--unsearched", "erm", "--draws", "0")
    main(options("final", root, model_folder, out, *given))
    (row,) = read(out / "rows.jsonl")
    assert row.cell.rate == METHODS["erm"].rate
    assert row.tests["test_same"].right.keys() == set(READINGS)
    main(options("final", root, model_folder, out, *given, "--rate", "3e-5"))
    assert [row.cell.rate for row in read(out / "rows.jsonl")] == [METHODS["erm"].rate, 3e-5]


def test_a_try_reads_development_images_alone_and_is_no_search(
    model_folder: Path, tmp_path: Path
) -> None:
    root, out = planted(tmp_path / "planted"), tmp_path / "out"
    for test in ("test_same", "test_shuffled"):
        (root / test).rename(tmp_path / test)
    given = ("--methods", "consistency", "consistency-cold", "base")
    main(options("try", root, model_folder, out, *given, "--draws", "0"))
    main(options("try", root, model_folder, out, *given, "--draws", "1", "--rate", "3e-5"))
    rows = read(out / "rows.jsonl")
    usual = METHODS["consistency"].rate
    assert [(r.cell.phase, r.cell.method, r.cell.draw, r.cell.rate) for r in rows] == [
        ("try", name, draw, rate)
        for draw, rate in ((1000, usual), (1001, 3e-5))
        for name in ("consistency", "consistency-cold")
    ]
    assert all(len(r.development) == 3 and not r.tests for r in rows)
    assert best_rate(rows, rows[0].cell, END) is None


@pytest.mark.parametrize(
    ("phase", "given", "said"),
    [
        ("final", ("--rate", "3e-5"), "only for `try`, and for `final` of --unsearched methods"),
        ("search", ("--unsearched", "erm", "--rate", "3e-5"), "only for `try`"),
        ("final", ("--unsearched", "erm", "--rate", "0"), "must be above 0"),
        ("final", ("--unsearched", "erm", "--rate", "nan"), "must be above 0"),
    ],
)
def test_a_rate_that_nothing_would_take_is_refused(
    phase: str, given: tuple[str, ...], said: str, model_folder: Path, tmp_path: Path
) -> None:
    root, out = planted(tmp_path / "planted"), tmp_path / "out"
    with pytest.raises(SystemExit, match=said):
        main(options(phase, root, model_folder, out, "--methods", "erm", *given))
    assert not out.exists()


def test_tests_are_not_read_again_at_another_rate(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = planted(tmp_path / "planted"), tmp_path / "out"
    out.mkdir()
    for rate, score in ((1e-5, 9.0), (3e-5, 1.0)):
        append(
            out / "rows.jsonl",
            a_row(replace(CELL, method="erm", images=0, rate=rate), (0.0, score, score)),
        )
    seen = dict.fromkeys(READINGS, "80")
    read_before = replace(
        a_row(Cell("final", "planted", "erm", "steps", 0, "all", 0, 3e-5), (0.0, 1.0, 1.0)),
        tests={"test_same": Answers("d", {"ant": 1}, seen)},
    )
    append(out / "rows.jsonl", read_before)
    with pytest.raises(SystemExit, match="the tests are read once"):
        main(options("final", root, model_folder, out, "--methods", "erm"))


def test_the_tests_may_be_read_at_the_default_rate_and_at_the_searched_one(
    model_folder: Path, tmp_path: Path
) -> None:
    root, out = planted(tmp_path / "planted"), tmp_path / "out"
    given = ("--methods", "erm", "--draws", "0")
    main(options("final", root, model_folder, out, *given, "--unsearched", "erm"))
    other = 9e-5
    searched = replace(CELL, method="erm", images=0, rate=other)
    append(out / "rows.jsonl", a_row(searched, (0.0, 9.0, 9.0)))
    main(options("final", root, model_folder, out, *given))
    main(options("final", root, model_folder, out, *given, "--unsearched", "erm"))
    finals = [row for row in read(out / "rows.jsonl") if row.cell.phase == "final"]
    assert [row.cell.rate for row in finals] == [METHODS["erm"].rate, other]
    assert all(row.tests["test_same"].right.keys() == set(READINGS) for row in finals)


@pytest.mark.parametrize(
    ("method", "passes"),
    [
        ("finetune", 1),
        ("swap", 1),
        ("refocus", 4),
        ("refocus-energy0", 4),
        ("refocus-swaps1", 2),
        ("finetune+kl", 2),
        ("consistency", 5),  # four, and the teacher's
        ("consistency-swaps0", 2),
    ],
)
def test_passes_of_one_image_are_counted(method: str, passes: int, model_folder: Path) -> None:
    assert passes_per_image(METHODS[method], load(model_folder)) == passes


def test_the_budget_of_passes_gives_each_method_as_many(model_folder: Path, tmp_path: Path) -> None:
    root = planted(tmp_path / "planted")
    args = module.options().parse_args(
        options("search", root, model_folder, tmp_path / "out", "--steps", "100")
    )
    field = module.opened(args)
    for method, steps in (("finetune", 400), ("refocus", 100), ("finetune+kl", 200), ("erm", 400)):
        assert one_cell.steps_for(replace(CELL, method=method, budget="passes"), field) == steps
        assert one_cell.steps_for(replace(CELL, method=method), field) == 100


def test_two_processes_do_not_share_a_folder(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = planted(tmp_path / "planted"), tmp_path / "out"
    out.mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(SystemExit, match="is writing here"):
            main(options("search", root, model_folder, out, "--methods", "erm"))
        other.kill()


_HOLD = """
import sys
from pathlib import Path
from refocus import locks
locks.hold(Path(sys.argv[1]))
print("held", flush=True)
input()
"""


def test_a_run_that_diverges_leaves_a_row(model_folder: Path, tmp_path: Path) -> None:
    root = planted(tmp_path / "planted")
    args = module.options().parse_args(options("search", root, model_folder, tmp_path / "out"))
    row = one_cell.run(replace(CELL, method="erm", rate=1e30), module.opened(args), ())
    assert "diverged" in row.notes
    assert best_rate([row], CELL, END) is None


def test_a_data_set_without_masks_is_refused(model_folder: Path, tmp_path: Path) -> None:
    root = planted(tmp_path / "planted")
    (root / "tune" / "masks").rename(root / "elsewhere")
    with pytest.raises(SystemExit, match=r"--masks planted: .* is missing"):
        main(options("search", root, model_folder, tmp_path / "out", "--methods", "erm"))


@pytest.mark.parametrize("given", ["bar", "nowhere=/", "planted=/nowhere"])
def test_bad_options_are_one_line(given: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="error: --data"):
        main(["search", "--out", str(tmp_path), "--data", given, "--model", given])


def test_a_tiny_model_of_the_field_is_untouched(tiny: Build) -> None:
    model = tiny()
    before = torch.cat([v.flatten() for v in model.state_dict().values()])
    passes_per_image(METHODS["refocus"], model)
    assert torch.equal(before, torch.cat([v.flatten() for v in model.state_dict().values()]))
    assert not model.training


@pytest.mark.parametrize(
    "name",
    [n for n, m in METHODS.items() if m.ablation and not m.direction],
)
def test_an_ablation_changes_the_loss_and_leaves_no_trace(name: str, tiny: Build) -> None:
    model, method = tiny(), METHODS[name]
    original = deepcopy(model)
    images, masks, labels = masked_batch(8)
    masks[::2] = masks[::2].roll(8, 2)  # else each object hides its donor's, margin and all

    def loss(weights: dict[str, float], changed: dict[str, Any]) -> float:
        which = name.split("-", maxsplit=1)[0]
        seen = {"seen": (0, 1)} if which == "refocus" else {}
        reads = which == "consistency" or weights.keys() & {"kl", "l2_sp"}
        step = objective(which, **({"original": original} if reads else {}), **seen, **weights)
        with replaced(changed):
            return step(model, images, masks, labels % 2)["loss"].item()

    before = loss({}, {})
    assert loss(method.recipe.get("weights", {}), method.changed) != pytest.approx(before, rel=1e-5)
    assert loss({}, {}) == before
