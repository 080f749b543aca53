from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evidence import tables
from evidence.rows import (
    END,
    READINGS,
    Answers,
    Cell,
    Development,
    Passes,
    Row,
    append,
    digest,
    pack,
    read,
    unpack,
)
from evidence.tables import EMPTY, asked, committed, groups, keep, main, rendered, stale, table
from refocus import InputError

FOLDERS = {"ant": 30, "bee": 70}


def a_row(method: str, draw: int, accuracy: float, **changes: object) -> Row:
    rng = np.random.default_rng([draw, len(method)])
    images = changes.pop("images", 3)
    budget = str(changes.pop("budget", "steps"))
    per_image = int(str(changes.pop("per_image", 1)))
    classes = str(changes.pop("classes", "all"))
    readings = [END] if method == "base" else READINGS

    def answers(share: float) -> Answers:
        right = {name: pack(rng.random(100) < share) for name in readings}
        return Answers(digest(["a"]), FOLDERS, right)

    tests = {"test_same": answers(0.9), "test_shuffled": answers(accuracy)}
    cell = Cell("final", "planted", method, budget, int(str(images)), classes, draw, 1e-5)
    passes = Passes(per_image, 800, 800 * per_image, 900 * per_image)
    trained = [] if method == "base" else ["ant"]
    return Row(cell, f"model{draw}", {}, "u", 6, trained, 100, passes, 9.0, 10.0, [], {}, tests)


ROWS = [
    *(a_row("base", draw, 0.4, images=0) for draw in range(2)),
    *(a_row("refocus", draw, 0.7, per_image=4) for draw in range(2)),
    *(a_row("finetune", draw, 0.45) for draw in range(2)),
    *(a_row("finetune", draw, 0.5, budget="passes") for draw in range(2)),
]
MARKED = "Before.\n<!-- table: planted images=3 reading=end -->\n{}\n<!-- end -->\nAfter.\n"


def numbers(line: str, column: int) -> float:
    return float(line.split("|")[column].split(maxsplit=1)[0])


def test_a_table_has_the_accuracy_and_the_paired_change() -> None:
    text = table(ROWS, asked("planted images=3 reading=end"))
    lines = text.splitlines()
    assert lines[0].startswith("| method | uses | rate | same | shuffled | worst class | passes")
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["base", "refocus", "finetune"]
    by = {r.cell.method: r for r in ROWS if r.cell.draw == 0}

    def mean_of(method: str, budget: str = "steps") -> float:
        rows = [r for r in ROWS if r.cell.method == method and r.cell.budget == budget]
        bits = [unpack(r.tests["test_shuffled"].right[END], 100) for r in rows]
        return 100 * float(np.mean(bits))

    assert numbers(lines[3], 5) == pytest.approx(mean_of("refocus"), abs=0.051)
    change = float(lines[3].split("|")[5].split("(")[1].split(":")[0])
    assert change == pytest.approx(mean_of("refocus") - mean_of("base"), abs=0.051)
    assert "3200" in lines[3]
    assert by["base"].tests["test_same"].classes == FOLDERS


def test_a_budget_takes_its_own_rows_or_those_of_the_same_passes() -> None:
    found = groups(ROWS, asked("planted images=3 budget=passes reading=end"))
    budgets = {g.method: {r.cell.budget for r in g.draws.values()} for g in found}
    assert budgets == {"base": {"steps"}, "refocus": {"steps"}, "finetune": {"passes"}}
    assert len(groups(ROWS, asked("planted images=3 budget=long reading=end"))) == 1  # the base


def test_a_method_may_be_shown_of_one_number_of_images_alone() -> None:
    more = [replace(row, cell=replace(row.cell, images=10)) for row in ROWS]
    found = groups([*ROWS, *more], asked("planted images=3,10 methods=refocus:10,finetune"))
    shown = {
        name: {g.images for g in found if g.method == name} for name in ("refocus", "finetune")
    }
    assert shown == {"refocus": {10}, "finetune": {3, 10}}


def test_the_worst_class_is_that_of_each_draw() -> None:
    (group,) = groups(ROWS, asked("planted images=3 methods=refocus reading=end"))
    expected = []
    for row in group.draws.values():
        both = [unpack(a.right[END], 100) for a in row.tests.values()]
        expected.append(min(100 * part.mean() for b in both for part in (b[:30], b[30:])))
    found = tables.measures(asked("planted"))["worst class"](group)
    assert found[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_a_run_that_went_on_after_an_interruption_is_not_clocked() -> None:
    cut = replace(ROWS[3], cpu_seconds=1.0, passes=replace(ROWS[3].passes, all=100))
    text = table([*ROWS[:3], cut, *ROWS[4:6]], asked("planted images=3 reading=end"))
    assert [line.split("|")[-3].strip() for line in text.splitlines()[3:]] == ["10", "10"]
    alone = table([ROWS[1], cut], asked("planted images=3 reading=end methods=base,refocus"))
    assert alone.splitlines()[-1].split("|")[-3].strip() == ""


def test_half_of_the_classes_are_shown_apart() -> None:
    rows = [*ROWS[:2], *(a_row("swap", d, 0.6, classes="half") for d in range(2))]
    text = table(rows, asked("planted images=3 reading=end classes=half"))
    base, swap = text.splitlines()[2:]
    assert "of trained classes | of other classes" in text
    bits = [unpack(r.tests["test_shuffled"].right[END], 100) for r in rows[2:]]
    assert numbers(swap, 6) == pytest.approx(100 * np.mean([b[:30] for b in bits]), abs=0.051)
    assert numbers(swap, 7) == pytest.approx(100 * np.mean([b[30:] for b in bits]), abs=0.051)
    assert [cell.strip() for cell in base.split("|")[6:8]] == ["", ""]
    assert table(rows, asked("planted images=3 reading=end")).count("swap") == 0


def test_changes_can_be_measured_from_another_method() -> None:
    text = table(ROWS, asked("planted images=3 reading=end against=finetune"))
    line = next(line for line in text.splitlines() if "refocus" in line)
    found = float(line.split("|")[5].split("(")[1].split(":")[0])
    bits = {
        m: np.mean(
            [
                unpack(r.tests["test_shuffled"].right[END], 100)
                for r in ROWS
                if r.cell.method == m and r.cell.budget == "steps"
            ]
        )
        for m in ("refocus", "finetune")
    }
    assert found == pytest.approx(100 * (bits["refocus"] - bits["finetune"]), abs=0.051)


def test_methods_on_the_whole_pool_are_compared_with_those_on_few_images() -> None:
    rows = [*ROWS, *(a_row("erm", draw, 0.5, images=0) for draw in range(2))]
    text = table(rows, asked("planted images=3 reading=end against=refocus"))
    erm = next(line for line in text.splitlines() if "| erm" in line)
    assert "(-" in erm.split("|")[5]


def searched(row: Row, rate: float, score: float) -> Row:
    cell = replace(row.cell, phase="search", draw=1000, rate=rate)
    shares = dict.fromkeys(READINGS, 1.0)
    return replace(
        row, cell=cell, tests={}, development=[Development(1.0, score, score)], shares=shares
    )


def test_a_table_shows_the_default_rates_or_those_of_a_search() -> None:
    at_default = a_row("refocus", 0, 0.7, per_image=4)
    other = a_row("refocus", 0, 0.9, per_image=4)
    other = replace(other, cell=replace(other.cell, rate=3e-5))
    rows = [*ROWS[:2], at_default, other]
    wanted = "planted images=3 reading=end methods=base,refocus"
    default, best = asked(wanted), asked(f"{wanted} rates=searched")
    accuracies = [
        100 * float(np.mean(unpack(r.tests["test_shuffled"].right[END], 100)))
        for r in (at_default, other)
    ]

    found = table(rows, default).splitlines()[-1]
    assert "| 1e-05† |" in found
    assert numbers(found, 5) == pytest.approx(accuracies[0], abs=0.051)
    assert "refocus" not in table(rows, best)  # no rate was searched

    tried = [searched(at_default, rate, score) for rate, score in ((1e-5, 50.0), (3e-5, 60.0))]
    found = table([*rows, *tried], best).splitlines()[-1]
    assert "| 3e-05* |" in found  # none was tried beyond
    assert numbers(found, 5) == pytest.approx(accuracies[1], abs=0.051)
    found = table([*rows, *tried, searched(at_default, 9e-5, 20.0)], best).splitlines()[-1]
    assert "| 3e-05 |" in found
    assert "| 1e-05† |" in table([*rows, *tried], default)
    found = table([*rows, *tried], asked(f"{wanted} rates=3e-5")).splitlines()[-1]
    assert "| 3e-05 |" in found
    assert numbers(found, 5) == pytest.approx(accuracies[1], abs=0.051)

    tried[0] = searched(at_default, 1e-5, 70.0)  # the search may also choose the default
    found = table([*rows, *tried], best).splitlines()[-1]
    assert numbers(found, 5) == pytest.approx(accuracies[0], abs=0.051)


@pytest.mark.parametrize("text", ["planted rates=mine", "planted rates=-1", "planted classes=few"])
def test_a_key_with_an_unknown_value_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"default, searched|one of all"):
        asked(text)


def test_a_number_that_is_not_in_the_rows_is_found(tmp_path: Path) -> None:
    rows, document = tmp_path / "rows", tmp_path / "results.md"
    rows.mkdir()
    for row in ROWS:
        append(tmp_path / "rows.jsonl", row)
    document.write_text(MARKED.format(""))
    given = ["--rows", str(rows), "--docs", str(document)]
    main([*given, "--keep", str(tmp_path / "rows.jsonl")])
    made = document.read_text()
    assert made.startswith("Before.\n<!-- table: planted images=3 reading=end -->\n| method")
    assert made.endswith("<!-- end -->\nAfter.\n")
    main([*given, "--check"])
    main(given)
    assert document.read_text() == made  # the same rows give the same text
    digit = next(c for c in made.split("refocus")[1] if c in "12345678")
    document.write_text(
        made.replace(
            f"refocus{made.split('refocus')[1].split(digit)[0]}{digit}",
            f"refocus{made.split('refocus')[1].split(digit)[0]}9",
        )
    )
    assert document.read_text() != made
    with pytest.raises(SystemExit, match="not what the rows give"):
        main([*given, "--check"])


@pytest.mark.slow
def test_the_documents_say_what_the_committed_rows_give() -> None:
    rows = committed()
    for document in tables.DOCS:
        assert not stale(document, rows), f"{document.name}: run `make results`"


def test_without_rows_a_table_says_so() -> None:
    assert rendered(MARKED.format("| 1 |"), []) == MARKED.format(EMPTY)


def test_a_table_that_is_still_empty_takes_nothing_with_it() -> None:
    empty = "<!-- table: planted images=3 reading=end -->\n<!-- end -->\n"
    found = rendered(f"{empty}\nbetween\n\n{empty}", ROWS)
    assert found.count("| base |") == found.count("<!-- end -->") == 2
    assert "\n\nbetween\n\n" in found
    assert rendered(found, ROWS) == found


def test_a_cell_is_kept_once(tmp_path: Path) -> None:
    append(tmp_path / "a.jsonl", ROWS[0])
    keep([tmp_path / "a.jsonl", tmp_path / "a.jsonl"], tmp_path)
    kept = tmp_path / "field-planted.jsonl.gz"
    before = kept.read_bytes()
    keep([tmp_path / "a.jsonl"], tmp_path)
    assert kept.read_bytes() == before
    assert read(kept) == ROWS[:1]
    append(tmp_path / "b.jsonl", replace(ROWS[0], seconds=3.0))
    with pytest.raises(InputError, match="a cell is run once"):
        keep([tmp_path / "b.jsonl"], tmp_path)


def test_methods_of_a_draw_must_have_had_the_same_images() -> None:
    rows = [*ROWS, replace(a_row("swap", 1, 0.5), used="others")]
    with pytest.raises(InputError, match=r"draw 1, 3 images a class: .* trained on different"):
        table(rows, asked("planted images=3 reading=end"))


def test_a_change_needs_the_row_of_the_base_model() -> None:
    with pytest.raises(InputError, match="no row of the base model model0"):
        table(ROWS[2:], asked("planted images=3"))


@pytest.mark.parametrize("text", ["nowhere", "planted image=3", "planted images"])
def test_a_misspelt_table_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="choose one of"):
        asked(text)


def test_bits_come_back() -> None:
    right = np.random.default_rng(0).random(13) < 0.5
    assert (unpack(pack(right.tolist()), 13) == right).all()


def a_try(method: str, draw: int, half: tuple[float, float], rate: float = 1e-5) -> Row:
    found = [Development(0.0, 90.0, 50.0), Development(0.5, *half), Development(1.0, 80.0, 70.0)]
    row = replace(a_row(method, draw, 0.5), development=found, tests={})
    shares = {"end": 1.0, "half": 0.5, "selected": 0.5}
    return replace(row, cell=replace(row.cell, phase="try", rate=rate), shares=shares)


def test_what_was_tried_is_compared_within_its_draws() -> None:
    rows = [
        *ROWS,
        a_try("consistency", 0, (90.0, 60.0)),
        a_try("consistency", 1, (80.0, 70.0)),
        a_try("consistency-cold", 0, (92.0, 68.0)),
        a_try("consistency-cold", 1, (80.0, 72.0)),
        a_try("consistency-warm", 1, (70.0, 60.0), 3e-5),
        a_try("consistency-warm", 0, (95.0, 95.0), 3e-5),  # nothing to compare it with
        a_try("consistency", 1, (70.0, 56.0), 3e-5),
        a_try("consistency-attention", 1, (82.0, 72.0), 3e-5),  # its default rate
        replace(a_try("consistency-mean", 1, (0, 0)), development=[], shares={}),  # diverged
    ]
    text = table(rows, asked("planted images=3 phase=try against=consistency"))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert [(line[0].removeprefix("consistency"), line[2]) for line in lines[2:]] == [
        ("-cold", "1e-05"),
        ("-attention", "3e-05"),
        ("", "1e-05"),
        ("-warm", "3e-05"),
        ("", "3e-05"),
    ]
    by_name = {line[0]: line for line in lines[-1:1:-1]}  # the first of a name
    assert by_name["consistency-attention"][5] == "+2.0"  # the objective at its own default rate
    assert by_name["consistency-cold"][2:6] == ["1e-05", "86.0", "70.0", "+3.0 (+1.0 to +5.0)"]
    assert by_name["consistency-cold"][8] == "+0.0 (+0.0 to +0.0)"
    assert by_name["consistency"][5] == ""
    assert by_name["consistency-warm"][2:6] == ["3e-05", "70.0", "60.0", "+2.0"]
    assert (by_name["consistency-cold"][-1], by_name["consistency-warm"][-1]) == ("2", "1")
    assert table(rows, asked("planted images=50 phase=try")) == EMPTY
    assert "cold" not in table(rows, asked("planted images=3"))  # no test was read
    with pytest.raises(InputError, match="choose one of final, try"):
        asked("planted phase=search")
