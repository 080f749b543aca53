"""The proof end to end on a tiny model: what `evaluate` measures with masks, and the pages of
`audit` and `report`.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

import refocus
from refocus.data import sampling, shifts
from refocus.evaluation import prove
from refocus.evaluation.metrics import paired_difference
from refocus.evaluation.plan import How, Plan
from refocus.figures.tables import Row, accuracy_rows, as_csv, markdown
from refocus.records import Prediction, read_lines
from refocus.reports.audit import verdict, worst_images
from refocus.reports.gallery import outcomes
from refocus.vit import loading
from tests.makers import NAMES, make_images, run, stimuli

Build = Callable[..., nn.Module]


def answer(image: str, label: int, guess: int, true: float = 0.5) -> Prediction:
    return Prediction(image, label, (guess,), 0.5, true)


# --- numbers ------------------------------------------------------------------------------------


def test_background_reliance_of_two_hand_made_models() -> None:
    images = [f"a/{i}.png" for i in range(40)]
    plain = [answer(i, 0, 0, 0.9) for i in images]
    same = [answer(i, 0, 0, 0.8) for i in images]
    leaning = [answer(i, 0, int(n % 2), 0.3) for n, i in enumerate(images)]  # half of them lost
    steady = [answer(i, 0, 0, 0.7) for i in images]
    found = prove.background_reliance(
        {"model": plain, "against": plain},
        {"model": same, "against": same},
        {"model": steady, "against": leaning},
        0,
    )
    assert found["model"]["bg_gap"]["value"] == 0
    assert found["against"]["bg_gap"]["value"] == 50
    assert found["difference"]["bg_gap"]["value"] == -50
    low, high = found["difference"]["bg_gap"]["interval"]
    assert -70 < low < -50 < high < -30
    assert found["against"]["confidence_change"]["value"] == pytest.approx(-0.5)
    assert found["difference"]["confidence_change"]["value"] == pytest.approx(0.4)
    assert found["model"]["plain"]["top1"] == 100


def test_the_interval_of_a_curve_resamples_images_not_their_levels() -> None:
    # each image is right at all of 20 levels or at none: 30 independent facts, not 600
    lines = [answer(f"a/{i}.png", 0, int(i % 2)) for i in range(30)]
    result = prove.SuiteResult(lines, {})
    found = prove.curve({str(k): {"model": result} for k in range(20)}, 0)
    assert found["top1"] == 50
    assert found["n"] == 30
    low, high = found["top1_interval"]
    assert high - low > 30
    assert [line["top1"] for line in found["levels"]] == [50] * 20


def test_at_most_so_many_images_are_spread_over_the_classes(
    image_folders: tuple[Path, Path],
) -> None:
    samples = refocus.data.folders.folder_samples(*image_folders)
    chosen = sampling.chosen(samples, 10, 0)
    assert sorted(sum(path.parent.name == name for path in chosen) for name in NAMES) == [
        2,
        2,
        3,
        3,
    ]
    firsts = {next(iter(sampling.chosen(samples, 1, seed))).parent.name for seed in range(20)}
    assert len(firsts) > 1  # not always the first class of the listing
    assert len(sampling.chosen(samples, None, 0)) == len(sampling.chosen(samples, 99, 0)) == 24
    one_each = sampling.chosen(samples, 4, 0)  # all others still lend their backgrounds
    (shift, some), *_ = shifts.shifts(samples, "mixed-same", 0, one_each)
    assert {s.image for s in some} == one_each
    everyone, _ = shifts.shifts(samples, "mixed-same", 0)[0]
    assert all(shift(s).tobytes() == everyone(s).tobytes() for s in some)


def test_no_difference_is_shown_without_its_interval() -> None:
    row = Row("a", "top-1", 1, 50.0, None, "", 40.0, 10.0, None)
    assert row.difference_text == "-"
    assert row.decided == 0
    assert Row("a", "", 9, 1.0, [0, 2], "", 0.0, 1.0, [0.1, 2.0]).decided == 1
    assert Row("a", "", 9, 1.0, [0, 2], "", 0.0, -1.0, [-2.0, -0.1]).decided == -1
    assert (
        Row("a", "", 9, 1.0, [0, 2], "", 0.0, 1.0, [0.1, 2.0], chance=0.125).decided == 0
    )  # 4 to 0 proves nothing
    assert "| 40.0 | - | - |" in markdown([row])
    assert as_csv([row]).splitlines()[1] == "a,top-1,,1,50.0,,,40.0,,,"


def test_gallery_groups_are_chosen_by_rule() -> None:
    before = [answer(str(i), 0, int(i < 6), 0.1 * (i % 4)) for i in range(12)]  # 0-5 wrong
    after = [answer(str(i), 0, int(i % 2), 0.9 - 0.05 * i) for i in range(12)]  # even right
    corrected, spoiled, right, wrong = outcomes(before, after, count=2)
    assert (corrected.total, spoiled.total, right.total, wrong.total) == (3, 3, 3, 3)
    assert corrected.shown == ["0", "4"]  # rises of 0.9, 0.7 and 0.6 for 0, 4 and 2
    assert spoiled.shown[0] == "11"
    assert right.shown == ["6"]
    assert wrong.shown == ["1"]


# --- evaluate -----------------------------------------------------------------------------------


@pytest.fixture
def two_models(tiny: Build, tmp_path: Path) -> tuple[Path, Path]:
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        loading.save(tiny(), folder)
    return folders


def test_evaluate_with_masks_shifts_groups_and_cues(
    monkeypatch: pytest.MonkeyPatch,
    two_models: tuple[Path, Path],
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, masks = image_folders
    groups = tmp_path / "groups.csv"
    groups.write_text(
        "image,group\n"
        + "".join(
            f"{n}/{i}.png,{'even' if i % 2 == 0 else 'odd'}\n" for n in NAMES for i in range(6)
        )
    )
    cues = stimuli(tmp_path / "cues", ["cat1-dog1", "dog2-cat1", "cat2-cat3", "dog3-ant1"])
    mapping = tmp_path / "mapping.json"
    mapping.write_text(json.dumps({"cat": ["cat"], "dog": ["dog", "ant"]}))
    out = tmp_path / "ev"
    arguments = [
        "evaluate",
        "--model",
        two_models[0],
        "--against",
        two_models[1],
        "--on",
        f"mine={images}",
        f"cue-conflict={cues}",
        "--masks",
        f"mine={masks}",
        "--shift",
        "mixed-same,mixed-rand,size",
        "--groups",
        f"mine={groups}",
        "--mapping",
        mapping,
        "--faithfulness",
        4,
        "--out",
        out,
    ]
    assert run(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    for text in (
        "mine: mixed-rand",
        "mine: size (mean)",
        "BG-gap",
        "shape bias",
        "pointing game",
        "insertion",
    ):
        assert text in shown
    entry = json.loads((out / "results.json").read_text())["suites"]["mine"]
    assert entry["n"] == 24
    assert entry["protocol"] == "standard"
    for part in (entry, entry["shifts"]["mixed-rand"]):
        assert part["difference"]["top5"] == pytest.approx(part["top5"] - part["against"]["top5"])
        assert part["top5_interval"][0] <= part["top5"] <= part["top5_interval"][1]
    for part in (entry, *entry["shifts"].values()):
        assert part["difference"]["top1"] == pytest.approx(part["top1"] - part["against"]["top1"])
        low, high = part["difference"]["interval"]
        assert low <= part["difference"]["top1"] <= high
    assert {row["name"] for row in entry["groups"]} == {"even", "odd"}
    assert entry["groups"][0]["top1"] <= entry["groups"][1]["top1"]
    assert [line["level"] for line in entry["shifts"]["size"]["levels"]] == [
        name for name, _ in shifts.KINDS["size"].levels
    ]
    bias = json.loads((out / "results.json").read_text())["suites"]["cue-conflict"]
    assert (bias["n"], bias["dropped_same"], bias["dropped_unmapped"]) == (2, 1, 1)
    records = {
        name: list(read_lines(out / "records" / "mine" / f"{name}.model.jsonl"))
        for name in ("mixed-same", "mixed-rand")
    }
    same, rand = (
        refocus.evaluation.classify.as_result(lines).predictions for lines in records.values()
    )
    assert entry["background"]["model"]["bg_gap"]["value"] == paired_difference(same, rand)["top1"]


def test_a_shift_on_the_fly_gives_the_answers_of_the_written_folder(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    images, masks = image_folders
    assert (
        run(
            monkeypatch,
            "shifts",
            images,
            "--masks",
            masks,
            "--kind",
            "mixed-rand",
            "--out",
            tmp_path / "s",
            "--seed",
            5,
        )
        == 0
    )
    on_the_fly = [
        "--on",
        f"a={images}",
        "--masks",
        f"a={masks}",
        "--shift",
        "mixed-rand",
        "--seed",
        5,
    ]
    assert (
        run(monkeypatch, "evaluate", "--model", model_folder, *on_the_fly, "--out", tmp_path / "e1")
        == 0
    )
    written = tmp_path / "s" / "mixed-rand"
    assert (
        run(
            monkeypatch,
            "evaluate",
            "--model",
            model_folder,
            "--on",
            f"a={written}",
            "--out",
            tmp_path / "e2",
        )
        == 0
    )
    first = list(read_lines(tmp_path / "e1" / "records" / "a" / "mixed-rand.model.jsonl"))
    assert first == list(read_lines(tmp_path / "e2" / "records" / "a" / "standard.model.jsonl"))


def test_two_orders_of_classes_see_the_same_shifted_images(
    tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    first = tiny()
    second = tiny()
    second.load_state_dict(first.state_dict())
    second.head.weight.data = first.head.weight.data.flip(0)
    second.head.bias.data = first.head.bias.data.flip(0)
    second.pretrained_cfg["label_names"] = NAMES[::-1]
    plan = Plan({"a": images}, {"a": masks}, ("mixed-rand", "mixed-next"), most=9)
    entry = prove.prove({"model": first, "against": second}, plan, How(tmp_path, quiet=True))["a"]
    for part in (entry, *entry["shifts"].values()):
        assert part["difference"]["corrected"] == part["difference"]["broken"] == 0


# --- pages --------------------------------------------------------------------------------------


class Links(HTMLParser):
    """Everything that a page would have to fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            v
            for k, v in attrs
            if k in ("src", "href", "srcset") and v and not v.startswith("data:")
        ]
        if tag in ("script", "link", "iframe", "object"):
            self.found.append(tag)


def self_contained(page: Path) -> str:
    text = page.read_text()
    assert Links(text).found == []
    assert "url(" not in text
    return re.sub(r"data:[^\"]*", "", text)


def test_audit_writes_its_page_and_goes_on_where_it_stopped(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, masks = image_folders
    out = tmp_path / "audit"
    arguments = [
        "audit",
        "--model",
        model_folder,
        "--images",
        images,
        "--masks",
        masks,
        "--most",
        12,
        "--out",
        out,
    ]
    assert run(monkeypatch, *arguments) == 0
    assert "BG-gap" in capsys.readouterr().out
    content = json.loads((out / "audit.json").read_text())
    assert content["entry"]["masked"] == 12
    assert sum(row["n"] for row in content["classes"]) == 12
    text = self_contained(out / "audit.html")
    assert content["verdict"].split(":")[0] in text
    assert all(row["image"] in text for row in content["worst_images"])
    assert run(monkeypatch, *arguments) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--resume") == 2
    assert "nothing to resume" in capsys.readouterr().err
    (out / "manifest.json").unlink()
    assert run(monkeypatch, *arguments, "--resume") == 0
    assert json.loads((out / "audit.json").read_text()) == content


def gap(
    value: float, low: float, high: float, chance: float = 0.01, *, falls: bool = False
) -> dict[str, Any]:
    sides = {"mixed_same": {"top1": 80.0}, "mixed_rand": {"top1": 80.0 - value}}
    change = {"value": -0.06, "interval": [-0.09, -0.03 if falls else 0.01]}
    found = {
        "bg_gap": {"value": value, "interval": [low, high], "mcnemar": chance},
        "confidence_change": change,
        **sides,
    }
    return {"background": {"model": found}}


def test_the_verdict_follows_the_interval() -> None:
    assert verdict(gap(20, 10, 30)).startswith("This model uses the background: top-1 is 80.0 %")
    assert verdict(gap(5, -3, 13)).startswith("No use of the background can be shown")
    assert verdict(gap(5, 1, 9, chance=0.125)).startswith("No use of the background can be shown")
    assert "confidence in the true class falls by 0.06 (95 %: 0.03 to 0.09)" in verdict(
        gap(5, -3, 13, falls=True)
    )
    assert "should not be" in verdict(gap(-9, -14, -4))
    assert "Too few" in verdict(
        {"background": {"model": {"bg_gap": {"value": None, "interval": None, "mcnemar": 1.0}}}}
    )


def test_worst_images_were_right_and_fell_most() -> None:
    same = [
        answer("a", 0, 0, 0.9),
        answer("b", 0, 0, 0.8),
        answer("c", 0, 1, 0.9),
        answer("d", 0, 0, 0.9),
    ]
    rand = [answer("a", 0, 1, 0.2), answer("b", 0, 0, 0.7), answer("c", 0, 1, 0.0)]
    assert [row["image"] for row in worst_images(same, rand, 5)] == [
        "a",
        "b",
    ]  # c was wrong, d has no swap


def tuned(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path, image_folders: tuple[Path, Path], out: Path
) -> Path:
    images, masks = image_folders
    arguments = ["--epochs", 2, "--shots", 2, "--lr", "1e-3", "--no-do-no-harm"]
    assert (
        run(
            monkeypatch,
            "tune",
            "--model",
            model_folder,
            "--images",
            images,
            "--masks",
            masks,
            "--out",
            out,
            *arguments,
        )
        == 0
    )
    return out


def test_report_of_a_run_tells_what_was_done_and_what_changed(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tuned(monkeypatch, model_folder, image_folders, tmp_path / "run")
    assert run(monkeypatch, "report", folder, "--faithfulness", 3) == 0
    assert "report.html" in capsys.readouterr().out
    entry = json.loads((folder / "proof" / "results.json").read_text())["suites"]["held-out"]
    assert entry["n"] == 24 - 4  # what was trained on is no part of it
    text = self_contained(folder / "report.html")
    for expected in (
        "Refocused with 4 images of 2 classes",
        "Corrected:",
        "Spoiled:",
        "never tuned on",
        "Object rotation",
        "do-no-harm",
    ):
        assert expected in text
    rows = list(csv.DictReader((folder / "report.csv").read_text().splitlines()))
    found = next(row for row in rows if row["suite"] == "held-out" and row["measure"] == "top-1")
    assert float(found["value"]) == pytest.approx(entry["top1"])
    assert (
        float(found["difference_low"])
        <= float(found["difference"])
        <= float(found["difference_high"])
    )
    assert "| held-out: mixed-rand |" in (folder / "report.md").read_text()
    assert {
        row["measure"] for row in csv.DictReader((folder / "classes.csv").read_text().splitlines())
    } == set(NAMES)
    names = {row["name"]: row["difference"]["n"] for row in entry["trained_differences"]}
    assert names == {"tuned on": 8, "never tuned on": 12}
    before = (folder / "proof" / "results.json").stat().st_mtime_ns
    assert run(monkeypatch, "report", folder, "--faithfulness", 3) == 0  # measured once
    assert (folder / "proof" / "results.json").stat().st_mtime_ns == before
    mask = next((image_folders[1] / "dog").iterdir())
    Image.fromarray(np.asarray(Image.open(mask))[::-1]).save(
        mask
    )  # mended: what was measured with it no longer counts
    capsys.readouterr()
    assert "probes/probes.html" not in text
    (folder / "probes").mkdir()
    (folder / "probes" / "probes.html").write_text("")
    assert run(monkeypatch, "report", folder, "--faithfulness", 3, "--most", 4) == 0
    assert '<a href="probes/probes.html">' in (folder / "report.html").read_text()
    assert "report.html: written anew" in capsys.readouterr().err
    assert (folder / "proof" / "results.json").stat().st_mtime_ns == before
    again = json.loads((folder / "proof-2" / "results.json").read_text())["suites"]["held-out"]
    assert again["masked"] == 4


def test_report_of_an_evaluation_without_masks(
    monkeypatch: pytest.MonkeyPatch,
    two_models: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, _ = make_images(tmp_path / "x")
    out = tmp_path / "ev"
    on = ["--on", f"a={images}"]
    assert (
        run(
            monkeypatch,
            "evaluate",
            "--model",
            two_models[0],
            "--against",
            two_models[1],
            *on,
            "--out",
            out,
        )
        == 0
    )
    assert run(monkeypatch, "report", out) == 0
    assert "Before and after" in self_contained(out / "report.html")
    assert run(monkeypatch, "report", out, *on) == 2
    assert (
        run(monkeypatch, "evaluate", "--model", two_models[0], *on, "--out", tmp_path / "one") == 0
    )
    assert run(monkeypatch, "report", tmp_path / "one") == 0
    assert (
        "tuned"
        not in self_contained(tmp_path / "one" / "report.html")
        .split("</style>")[1]
        .split("What was done")[0]
    )
    assert run(monkeypatch, "report", images) == 2
    assert "neither a folder of" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed")
def test_the_pages_fit_a_phone_and_a_desktop_in_a_real_browser(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    folder = tuned(monkeypatch, model_folder, image_folders, tmp_path / "run")
    assert run(monkeypatch, "report", folder) == 0
    images, masks = image_folders
    audit = [
        "audit",
        "--model",
        model_folder,
        "--images",
        images,
        "--masks",
        masks,
        "--out",
        tmp_path / "audit",
    ]
    assert run(monkeypatch, *audit) == 0
    probe = (
        "<script>addEventListener('load', () => { const all = [...document.images];"
        "const broken = all.filter(i => !i.naturalWidth).length;"
        "const needed = document.documentElement.scrollWidth;"
        "parent.document.title = ['seen', innerWidth, needed, all.length, broken].join(' ') "
        "})</script>"
    )
    for page in (folder / "report.html", tmp_path / "audit" / "audit.html"):
        text = page.read_text().replace(' loading="lazy"', "")  # a headless page is not scrolled
        copy = tmp_path / f"probe-{page.name}"
        for width in (400, 1300):
            # headless windows have a least width, so the page is looked at in a frame of the wanted
            # one
            inner = text.replace("</body>", f"{probe}</body>")
            frame = (
                f"<iframe style='border:0;width:{width}px;height:800px' "
                f"srcdoc='{_quoted(inner)}'></iframe>"
            )
            copy.write_text(f"<!doctype html><title>empty</title>{frame}")
            shown = subprocess.run(
                [
                    "chromium",
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-background-networking",
                    "--disable-sync",
                    "--disable-component-update",
                    "--no-first-run",
                    f"--user-data-dir={tmp_path / 'profile'}",
                    "--window-size=1400,900",
                    "--virtual-time-budget=8000",
                    "--dump-dom",
                    copy.as_uri(),
                ],
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            ).stdout
            found = re.search(r"<title>seen (\d+) (\d+) (\d+) (\d+)</title>", shown)
            assert found, shown[:200]
            inside, needed, pictures, broken = map(int, found.groups())
            assert inside == width
            assert needed <= width, f"{page.name} at {width}: scrolls sideways"
            assert pictures > 5
            assert broken == 0


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace("'", "&#39;")


def test_numbers_of_every_suite_have_a_row(
    tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    plan = Plan(
        {"a": images}, {"a": masks}, ("only-fg", "rotation"), protocols=("standard", "paper")
    )
    entries = prove.prove({"model": tiny()}, plan, How(tmp_path, quiet=True))
    rows = accuracy_rows(entries)
    assert [(r.name, r.protocol) for r in rows] == [
        ("a", "standard"),
        ("a", "paper"),
        ("a: only-fg", "standard"),
        ("a: rotation (mean)", "standard"),
    ]
    assert all(np.isfinite(r.value) and r.interval for r in rows)


def test_audit_finds_its_own_masks_where_none_are_given(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, _ = image_folders
    out = tmp_path / "audit"
    arguments = [
        "audit",
        "--model",
        model_folder,
        "--images",
        images,
        "--backbone",
        model_folder,
        "--mask-score",
        0,
    ]
    assert run(monkeypatch, *arguments, "--out", images / "audit") == 2
    assert "lies inside --images" in capsys.readouterr().err
    assert not (images / "audit").exists()
    assert run(monkeypatch, *arguments, "--out", out) == 0
    assert len(list((out / "masks").glob("*/*.png"))) == 24
    assert "found without annotation" in self_contained(out / "audit.html")
    assert "found automatically" in (out / "audit.html").read_text()
