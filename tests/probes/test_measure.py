"""Probes from the user's folder to the records."""

from __future__ import annotations

import json
import shutil
from array import array
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torch import nn

from refocus import evaluate
from refocus.errors import InputError
from refocus.probes import choice, measure, page, registry
from refocus.probes.batch import Batch
from refocus.probes.material import Material
from refocus.probes.results import read
from refocus.probes.settings import ProbeSettings
from refocus.probes.tools import corruptions
from refocus.records import ProbeRecord, read_lines
from refocus.vit import loading
from tests.makers import NAMES
from tests.probes.makers import run
from tests.zoo import ZOO

OWN = {"imagenet_c", "cues", "outside", "transfer", "results"}
LIGHT = [
    name for name, row in registry.PROBES.items() if not OWN & set(row.needs) and not row.fits
]  # others bring their own folders or more images, and are tested elsewhere
RANDOM = [
    "occlusion",
    "permutation",
    "cutout",
    "fourier",
    "pgd",
    "corruptions",
    "stylization",
    "subsets",
]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_every_probe_from_folder_to_page(folders: dict[str, Path], tmp_path: Path) -> None:
    options = [part for name, path in folders.items() for part in (f"--{name}", path)]
    out = tmp_path / "probes"
    output = run(*options, "--out", out, "--kind", *LIGHT, "--most", 4, "--batch-size", 3)
    page = (out / "probes.html").read_text()
    for name in LIGHT:
        assert name in output
        assert f'id="{name}"' in page
        numbers = read(out / name / "result.json").numbers
        for which in ("model", "against"):
            lines = (out / name / f"{which}.jsonl").read_text().splitlines()
            assert len(lines) == 4
            assert numbers.curves[which].n == 4
            assert all(
                p.value is None or p.n
                for points in numbers.curves[which].series.values()
                for p in points
            )
        assert (out / name / "curve.png").stat().st_size > 1000
        assert (out / name / "manifest.json").exists()
        assert (out / name / "picture.png").exists() == (
            not registry.PROBES[name].numbers
            or registry.PROBES[name].picture is not None
            or registry.PROBES[name].album is not None
        )
    plain = {
        r: read(out / r / "result.json").numbers.model.series for r in ("cutout", "permutation")
    }
    found = evaluate(loading.load(folders["model"]), folders["images"]).predictions
    seen = {
        json.loads(x)["image"] for x in (out / "cutout" / "model.jsonl").read_text().splitlines()
    }
    top1 = 100 * np.mean([p.right for p in found if p.image in seen])
    assert (
        plain["cutout"]["hole"][0].value
        == plain["permutation"]["shuffled"][0].value
        == pytest.approx(top1)
    )
    assert len((out / "probes.csv").read_text().splitlines()) == len(LIGHT) + 1
    assert 'src="http' not in page  # self-contained


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_chance_does_not_depend_on_batches_and_a_killed_probe_goes_on(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        "--model",
        folders["model"],
        "--images",
        folders["images"],
        "--styles",
        folders["styles"],
        "--most",
        4,
    ]
    run(*options, "--out", tmp_path / "one", "--kind", *RANDOM, "--batch-size", 4)
    run(*options, "--out", tmp_path / "other", "--kind", *RANDOM, "--batch-size", 2)
    for name in RANDOM:
        whole = (tmp_path / "one" / name / "model.jsonl").read_text()
        assert (tmp_path / "other" / name / "model.jsonl").read_text() == whole, name
    killed = tmp_path / "one" / "fourier"
    lines = (killed / "model.jsonl").read_text().splitlines(keepends=True)
    (killed / "model.jsonl").write_text("".join(lines[:2]) + lines[2][:7])
    (killed / "manifest.json").unlink()
    before = (killed / "result.json").read_text()
    (killed / "result.json").unlink()
    asked = []
    genuine = Batch.top1
    monkeypatch.setattr(
        Batch, "top1", lambda self, pixels: asked.append(len(pixels)) or genuine(self, pixels)
    )
    # in batches of two: the lines kept are one of them, which is not asked again
    run(*options, "--out", tmp_path / "one", "--kind", "fourier", "--batch-size", 2)
    assert set(asked) == {2}
    assert (killed / "model.jsonl").read_text() == "".join(lines)
    assert json.loads((killed / "result.json").read_text()) == json.loads(before)


def test_what_is_there_is_read_and_other_settings_are_refused(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--model", folders["model"], "--images", folders["images"], "--out", tmp_path / "o"]
    run(*options, "--kind", "cutout", "--most", 6)
    monkeypatch.setattr(measure, "collect", None)
    assert "cutout" in run(*options, "--kind", "cutout", "--most", 6)
    with pytest.raises(InputError, match="other models, folders or options"):
        run(*options, "--kind", "cutout", "--most", 7)


@pytest.mark.parametrize("gone", ["result.json", "picture.png"])
def test_what_was_deleted_is_made_again_from_the_records(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    options = ["--model", folders["model"], "--images", folders["images"], "--out", tmp_path / "o"]
    run(*options, "--kind", "cutout", "--most", 6)
    file = tmp_path / "o" / "cutout" / gone
    before = file.read_bytes()
    file.unlink()
    asked: list[object] = []
    monkeypatch.setattr(measure, "batch_of", lambda *given: asked.append(given))
    run(*options, "--kind", "cutout", "--most", 6)
    assert file.read_bytes() == before
    assert asked == []  # no image is asked again


def test_what_is_there_is_also_in_the_folders_of_other_processes(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ProbeSettings(kinds=("cutout",), most=4, device="cpu")
    model, images = folders["model"], folders["images"]
    first = measure.probe(model, tmp_path / "first", settings, images=images)
    told = SimpleNamespace(agreed=lambda _mine: first["cutout"])
    monkeypatch.setattr(measure, "sharing", lambda: told)
    assert measure.probe(model, tmp_path / "aside", settings, images=images) == first
    assert page.results(tmp_path / "aside") == first


def test_one_folder_holds_probes_of_one_model(folders: dict[str, Path], tmp_path: Path) -> None:
    images = ["--images", folders["images"], "--out", tmp_path / "o", "--most", 4]
    run("--model", folders["model"], *images, "--kind", "cutout")
    with pytest.raises(InputError, match=r"holds probes of other models \(cutout\)"):
        run("--model", folders["against"], *images, "--kind", "permutation")
    with pytest.raises(InputError, match=r"holds probes of other models \(cutout\)"):
        run(
            "--model",
            folders["model"],
            "--against",
            folders["against"],
            *images,
            "--kind",
            "permutation",
        )
    assert not (tmp_path / "o" / "permutation").exists()


def test_images_that_cannot_be_read_are_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    for file in folders["images"].rglob("*.png"):
        file.write_text("no image")
    with pytest.raises(InputError, match="none of the 4 images can be read"):
        run(
            "--model",
            folders["model"],
            "--images",
            folders["images"],
            "--out",
            tmp_path / "o",
            "--most",
            4,
            "--kind",
            "cutout",
        )
    assert not (tmp_path / "o").exists()


def test_a_picture_of_a_style_that_cannot_be_read_is_said_before_anything_is_written(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    for file in folders["styles"].iterdir():
        file.write_text("no image")
    given = {name: folders[name] for name in ("model", "images", "styles")}
    options = [part for name, path in given.items() for part in (f"--{name}", path)]
    with pytest.raises(InputError, match=r"^--styles .*styles/\d.png: "):
        run(*options, "--out", tmp_path / "o", "--kind", "stylization", "--most", 4)
    assert not (tmp_path / "o").exists()


def test_an_image_that_a_corruption_lacks_is_said_before_anything_is_written(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    for name in corruptions.ALEXNET:
        for severity in corruptions.SEVERITIES:
            shutil.copytree(folders["images"], tmp_path / "c" / name / str(severity))
    gone = tmp_path / "c" / "fog" / "3" / "ant" / "0.png"
    gone.unlink()
    options = ["--model", folders["model"], "--imagenet-c", tmp_path / "c"]
    with pytest.raises(InputError, match=f"^--imagenet-c {gone}: missing, as 1 of 24"):
        run(*options, "--out", tmp_path / "o", "--kind", "imagenet-c")
    assert not (tmp_path / "o").exists()


def test_bad_input_is_said_before_anything_is_written(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--model", folders["model"], "--images", folders["images"], "--out", tmp_path / "o"]
    for more, message in (
        (["--kind", "blur"], "--kind blur: unknown; choose one of all, fgsm"),
        (["--kind", "shapes"], "--kind shapes: needs --masks"),
        (["--kind", "stylization", "--styles", tmp_path / "nothing"], "--styles"),
        (["--kind", "cutout", "--saliency", "lime"], "--saliency lime: must be relevance or"),
        (["--kind", "imagenet-c"], "needs --imagenet-c"),
        (["--kind", "cutout", "--mapping", "x.json"], "only with --cues"),
        (["--kind", "cutout", "--adain", tmp_path], "only with --styles"),
        (["--kind", "transfer"], "--kind transfer: needs --transfer"),
        (["--kind", "out-of-distribution", "--outside", tmp_path / "nothing"], "--outside"),
        (
            ["--kind", "effective-robustness", "--results", folders["styles"]],
            "--results .*: holds no",
        ),
        (["--kind", "transfer", "--transfer", folders["styles"]], "holds no class folders"),
        (["--kind", "block-heads", "--most", 4], "too few for a linear head.*--most"),
    ):
        with pytest.raises(InputError, match=message):
            run(*options, *more)
    with pytest.raises(InputError, match="--images: missing"):
        run(*options[:2], *options[4:], "--kind", "cutout")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("option", [*choice.FOLDERS, "adain"])
def test_probes_are_not_written_among_what_is_read(
    folders: dict[str, Path], tmp_path: Path, option: str
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    given = {"model": folders["model"], "images": folders["images"], "styles": folders["styles"]}
    given |= {option: inside, "out": inside / "probes"}
    options = [part for name, path in given.items() for part in (_option(name), path)]
    with pytest.raises(InputError) as caught:
        run(*options, "--kind", "cutout", "--most", 4)
    assert f"lies inside {_option(option)} {inside}" in str(caught.value)
    assert list(inside.iterdir()) == []


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def test_probes_may_lie_beside_what_is_read(folders: dict[str, Path]) -> None:
    options = [part for name, path in folders.items() for part in (f"--{name}", path)]
    out = folders["images"].parent / "probes"
    for _ in range(2):  # and the same command reads them again
        run(*options, "--out", out, "--kind", "shapes", "--most", 4)
    assert (out / "shapes" / "result.json").exists()


def test_zero_shot_models_and_models_without_blocks(
    knowing: tuple[nn.Module, Path, Path], tmp_path: Path
) -> None:
    _, images, masks = knowing
    clip = ZOO["zero-shot CLIP, SigLIP"]["CLIP"]()
    material = Material(images, ProbeSettings(masks=str(masks), most=4), {"model": "clip"})
    for name in (
        "occlusion",
        "surgery",
        "class-tokens",
        "rotation",
        "attention-segmentation",
        "local-attention",
    ):
        assert measure.run(name, {"model": clip}, material, tmp_path).numbers.model.n == 4

    class Own(nn.Module):
        num_classes, prefix = 4, 0
        attention_maps = readout = grid = nn.Module.forward

    with pytest.raises(InputError, match="does not say which modules its blocks are"):
        choice.supported(["surgery"], ["surgery"], [Own()])


def test_cue_conflict_stimuli(
    knowing: tuple[nn.Module, Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, images, _ = knowing
    cues = tmp_path / "cues"
    for shape, texture in (("cat", "dog"), ("dog", "cat"), ("ant", "ant"), ("bee", "cat")):
        (cues / shape).mkdir(parents=True, exist_ok=True)
        shutil.copy(images / shape / "0.png", cues / shape / f"{shape}1-{texture}2.png")
    for misnamed in ("0.png", "1.png"):  # before all others of the first folder
        shutil.copy(images / "ant" / "0.png", cues / "ant" / misnamed)
    (tmp_path / "map.json").write_text(
        json.dumps({name: [name] for name in NAMES if name != "bee"})
    )
    loading.save(model, tmp_path / "m")
    run(
        "--model",
        tmp_path / "m",
        "--cues",
        cues,
        "--mapping",
        tmp_path / "map.json",
        "--out",
        tmp_path / "o",
        "--kind",
        "shape-bias",
    )
    found = read(tmp_path / "o" / "shape-bias" / "result.json").numbers.model
    (point,) = found.series["decisions for the shape"]
    assert found.n == 4
    said = [r.getMessage() for r in caplog.records if "do not give both cues" in r.getMessage()]
    assert len(said) == 1
    assert f"2 of its 6 stimuli do not give both cues, {cues / 'ant' / '0.png'} first" in said[0]
    assert point.n <= 2  # agreeing and unknown cues do not count
    values = {
        line["image"]: line["values"] for line in read_lines(tmp_path / "o/shape-bias/model.jsonl")
    }
    assert (
        values["ant/ant1-ant2.png"]
        == values["bee/bee1-cat2.png"]
        == {"decisions for the shape": [None]}
    )


@pytest.mark.slow
def test_published_corruptions_give_an_mce(
    knowing: tuple[nn.Module, Path, Path], tmp_path: Path
) -> None:
    model, images, _ = knowing
    for name in corruptions.ALEXNET:
        for severity in corruptions.SEVERITIES:
            shutil.copytree(images, tmp_path / "c" / name / str(severity))
    for file in (tmp_path / "c" / "fog").rglob("*.png"):
        Image.new("RGB", (40, 36)).save(file)  # all black: chance
    loading.save(model, tmp_path / "m")
    output = run(
        "--model",
        tmp_path / "m",
        "--imagenet-c",
        tmp_path / "c",
        "--out",
        tmp_path / "o",
        "--kind",
        "imagenet-c",
    )
    assert "imagenet-c" in output
    found = read(tmp_path / "o" / "imagenet-c" / "result.json").numbers.model
    curves = found.series
    assert len(curves) == 15
    assert curves["fog"][0].value == 25
    assert curves["snow"][0].value > 60
    errors = {name: 1 - np.mean([p.value for p in points]) / 100 for name, points in curves.items()}
    assert found.summary["mce"] == pytest.approx(corruptions.mean_corruption_error(errors))
    assert "mCE (model)" in (tmp_path / "o" / "probes.html").read_text()


def test_numbers_of_many_images_are_held_packed(tmp_path: Path) -> None:
    line = {"image": "a/0.png", "values": {"features": [0.5, None, 2]}}
    found = measure._held(line, below="val/", source=tmp_path)
    assert isinstance(found, ProbeRecord)
    packed = found.values["features"]
    assert isinstance(packed, array)
    assert packed.itemsize == 8
    assert (found.image, packed[0], packed[2]) == ("val/a/0.png", 0.5, 2)
    assert np.isnan(packed[1])
    with pytest.raises(InputError, match=f"{tmp_path}: not what refocus writes"):
        measure._held({"image": "a/0.png", "values": {"features": "x"}}, below="", source=tmp_path)
