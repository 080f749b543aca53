"""Settings as a file, and tables for a paper."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from refocus import InputError
from refocus.cli import main
from refocus.results import Change, Estimate
from refocus.studies import exports
from refocus.studies.config import as_config, read_config
from refocus.studies.findings import Findings
from refocus.studies.page import Pictures
from refocus.studies.results import Line
from refocus.studies.settings import StudySettings
from tests.studies.makers import RUN, options


def test_settings_come_back_from_their_file(tmp_path: Path) -> None:
    (tmp_path / "vit").mkdir()
    settings = StudySettings(
        on=str(tmp_path / 'a "quoted" name\\ é\x7f'),
        model=(str(tmp_path / "vit"), "vit_small_patch16_224", "hf:org/name"),
        masks=str(tmp_path / "masks"),
        shifts=("size", "mixed-rand"),
        rates={"relevance": 1e-7, "gradmask-as-published": 0.5},
        epochs=3,
        seeds=2,
    )
    file = tmp_path / "study.toml"
    file.write_text(as_config(settings))
    assert StudySettings(**read_config(file)) == settings
    text = file.read_text()
    for option, field in (("lr", "rates"), ("shift", "shifts")):  # as help calls it, or Python
        assert f"\n{option} = " in text
        text = text.replace(f"\n{option} = ", f"\n{field} = ")
    file.write_text(text)
    assert StudySettings(**read_config(file)) == settings


def test_relative_paths_are_meant_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "vit").mkdir()
    file = tmp_path / "study.toml"
    file.write_text('on = "images"\nmodel = ["vit", "vit_tiny_patch16_224"]\nmasks = "masks"\n')
    found = StudySettings(**read_config(file))
    assert (found.on, found.masks) == (str(tmp_path / "images"), str(tmp_path / "masks"))
    assert found.model == (str(tmp_path / "vit"), "vit_tiny_patch16_224")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("epoch = 3\n", "unknown key 'epoch'; choose one of data, on.* lr, .* shift, "),
        ("lr = { bce = 1 }\nrates = { bce = 1 }\n", "lr and rates are the same; give one"),
        ("epochs = \n", "not a readable TOML file"),
        ("# nothing yet\n", "holds no setting"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "study.toml").write_text(content)
    with pytest.raises(InputError, match=said):
        read_config(tmp_path / "study.toml")


@pytest.mark.slow
def test_a_dry_run_writes_the_file_that_a_study_takes(place: Path, tmp_path: Path) -> None:
    """An option that is given beside it counts; what the file says is checked like an option."""
    given = options(place, "--shift", "mixed-rand", "--lr", "relevance=1e-3")
    at = given.index("--out")
    del given[at : at + 2]
    file, out = tmp_path / "study.toml", tmp_path / "out"
    result = RUN.invoke(main.app, ["study", "table3", *given, "--dry-run", "--config", str(file)])
    assert result.exit_code == 0, result.exception
    assert read_config(file)["rates"] == {"relevance": 1e-3}
    assert read_config(file)["maps"] == 4
    again = ["study", "table3", "--config", str(file), "--out", str(out), "--maps", "3", "--csv"]
    result = RUN.invoke(main.app, again)
    assert result.exit_code == 0, result.exception
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["n"] for row in rows} == {"3"}
    assert result.stdout == (out / "table3.csv").read_text()
    result = RUN.invoke(main.app, [*again[:-1], "--latex"])
    assert result.stdout == (out / "table3.tex").read_text()
    assert result.stdout.startswith(r"\begin{tabular}")
    file.write_text(file.read_text().replace("epochs = 1", "epochs = 0"))
    result = RUN.invoke(main.app, again)
    assert isinstance(result.exception, InputError)
    assert "--epochs 0: must be" in str(result.exception)


def test_a_table_in_latex() -> None:
    line = Line(
        "vit_b & c",
        "published objective",
        "natural",
        "top1",
        Estimate(91.24, (90.0, 92.0), 500),
        Change(-0.04, (-1.0, 1.0), 500),
        0.5,
        3,
        82.0,
        -0.04,
    )
    text = exports.as_latex(Findings((line, replace(line, suite="size_100%"))))
    assert text.splitlines() == [
        r"\begin{tabular}{llrr}",
        r"\toprule",
        r"model & method & natural top-1 & size\_100\% top-1 \\",
        r"\midrule",
        r"vit\_b \& c & published objective, 3 draws & 91.2 $\pm$ 0.5 +0.0 (-1.0 to +1.0) & "
        r"91.2 $\pm$ 0.5 +0.0 (-1.0 to +1.0) \\",
        r" & \emph{the paper} & 82.0 +0.0 & 82.0 +0.0 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_figures_have_numbers_as_well() -> None:
    found = Findings(groups=(Pictures("m, natural: corrected", "best", 3, ()),), text="...")
    assert exports.as_csv(found) == 'images,count\n"m, natural: corrected",3\n'
    assert r"m, natural: corrected & 3 \\" in exports.as_latex(found)
    assert exports.as_csv(Findings()) == "\n"
