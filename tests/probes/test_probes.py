"""The probes: the maths of each, and the command from the user's folder to the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from refocus import evaluate
from refocus.cli import main as command
from refocus.data.images import read_image
from refocus.data.transforms import eval_image
from refocus.errors import InputError
from refocus.probes import kinds, measure, registry, results
from refocus.probes.batch import Batch, Options, answers, attention_of_readout, image_seed
from refocus.probes.tools import attacks, corruptions
from refocus.probes.tools.perturbations import fourier_basis
from refocus.probes.tools.subsets import sufficient_subsets
from refocus.records import read_lines
from refocus.vit import loading
from tests.makers import NAMES, make_images
from tests.zoo import ZOO

Build = Callable[..., nn.Module]
LIGHT = [
    name for name in registry.PROBES if name not in ("imagenet-c", "shape-bias")
]  # these bring their own folders


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer classes and rounds for subsets of pixels, and fewer steps of the patch attack: the rest
    is the same.
    """
    monkeypatch.setattr(kinds, "RANDOM_CLASSES", 1)
    monkeypatch.setattr(kinds, "sufficient_subsets", partial(sufficient_subsets, rounds=5))
    monkeypatch.setattr(attacks, "PATCH_STEPS", 3)


@pytest.fixture
def knowing(tiny: Build, tmp_path: Path) -> tuple[nn.Module, Path, Path]:
    """A tiny model trained until it knows a folder's classes, whose objects differ in
    brightness.
    """
    images, masks = make_images(tmp_path / "data")
    model = tiny()
    files = sorted(images.glob("*/*.png"))
    pixels = torch.stack([eval_image(model)(read_image(f)) for f in files])
    labels = torch.tensor([NAMES.index(f.parent.name) for f in files])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float((model(pixels).argmax(1) == labels).float().mean()) > 0.8
    return model.eval(), images, masks


def batch(
    model: nn.Module, count: int = 3, masks: Tensor | None = None, **options: object
) -> Batch:
    pixels = torch.rand(count, 3, 32, 32)
    return Batch(
        model,
        pixels,
        torch.arange(count) % 4,
        list(range(count)),
        [],
        Path(),
        Options(**options),
        masks,
    )


# --- the maths ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, row in registry.PROBES.items()
        if row.first == 1 and not row.needs and row.unit == registry.PERCENT
    ],
)
def test_the_first_level_of_a_disturbance_is_none(name: str, tiny: Build) -> None:
    b = batch(tiny(), 8)
    found = registry.PROBES[name].measure(b)
    for series, values in found.items():
        assert values.shape == (8, len(registry.PROBES[name].levels_of(b.model))), series
        assert torch.equal(values[:, 0], b.top1(b.pixels))


def test_occlusion_takes_the_salient_patches_first_or_last(
    tiny: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = batch(tiny(), 2)
    seen: dict[str, list[Tensor]] = {}
    for series, pixels in kinds.occlusion(b):
        seen.setdefault(series, []).append(pixels)
    relevance = b.saliency
    for series, best in (
        ("salient first", relevance.argmax(1)),
        ("salient last", relevance.argmin(1)),
    ):
        black = seen[series][1].unfold(2, 8, 8).unfold(3, 8, 8).sum((1, 4, 5)).flatten(1) == 0
        assert black.sum(1).tolist() == [2, 2]  # a tenth of 16 patches
        assert black[torch.arange(2), best].all()
    assert torch.equal(
        seen["salient first"][5] + seen["salient last"][5], b.pixels
    )  # the two halves
    assert all(torch.equal(s[-1], torch.zeros_like(b.pixels)) for s in seen.values())
    attention = batch(b.model, 2, saliency="attention")
    torch.testing.assert_close(attention.saliency.sum(1), torch.ones(2))


def test_class_tokens_end_with_the_model_itself(tiny: Build) -> None:
    b = batch(tiny(), 8)
    found = kinds.class_tokens(b)
    assert torch.equal(found["this block"][:, -1], b.clean)
    assert torch.equal(found["mean of this and all later blocks"][:, -1], b.clean)
    model = tiny()
    model.load_state_dict(b.model.state_dict())
    model.blocks = model.blocks[:1]
    early = (model(b.normalized(b.pixels)).argmax(1) == b.labels).float()
    assert torch.equal(found["this block"][:, 0], early)


def test_surgery_asks_each_block_once(tiny: Build) -> None:
    b = batch(tiny(), 8)
    found = kinds.surgery(b)
    assert list(found) == ["block", "attention", "mlp"]
    assert registry.PROBES["surgery"].levels_of(b.model) == ["none", "1", "2", "3"]
    model = tiny()
    model.load_state_dict(b.model.state_dict())
    model.blocks = nn.Sequential(model.blocks[0], model.blocks[2])
    assert torch.equal(
        found["block"][:, 2], (model(b.normalized(b.pixels)).argmax(1) == b.labels).float()
    )


@pytest.mark.parametrize("mass", [0.3, 0.6, 0.9, 1.0])
def test_the_fewest_patches_that_hold_the_mass(mass: float) -> None:
    attended = torch.rand(5, 16).softmax(-1)
    inside = kinds.covering(attended, mass)
    held = (attended * inside).sum(-1)
    assert (held >= mass - 1e-5).all()
    least = attended.masked_fill(~inside, 2).min(-1).values
    assert (held - least < mass).all()  # without the least of them it would not be enough


def test_attention_that_lies_on_the_object_has_a_jaccard_index_of_one(
    tiny: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = torch.zeros(2, 1, 32, 32)
    masks[..., 8:24, 8:24] = 1  # four of sixteen patches
    on, off = torch.zeros(16), torch.zeros(16)
    on[[5, 6, 9, 10]], off[[0, 3, 12, 15]] = 0.25, 0.25
    monkeypatch.setattr(
        kinds, "attention_of_readout", lambda *_: torch.stack([on, off]).expand(2, 2, 16)
    )
    found = kinds.attention_segmentation(batch(tiny(), 2, masks=masks))
    assert found["90% of the attention"].tolist() == [[1, 0, 1]] * 2  # two heads, and the best
    assert found["60% of the attention"].tolist() == [[0.75, 0, 0.75]] * 2


@pytest.mark.parametrize(("family", "variant"), [(f, v) for f, vs in ZOO.items() for v in vs])
def test_the_readouts_attention_is_a_share_for_every_head(family: str, variant: str) -> None:
    from refocus.vit.families import view
    from refocus.vit.loading import preprocessing

    model = ZOO[family][variant]()
    size = preprocessing(model)["input_size"]
    rows, columns = view(model).grid(*size[1:])
    found = attention_of_readout(model, torch.randn(2, *size))
    assert found.shape == (2, found.shape[1], rows * columns)
    torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:2]))


def test_random_classes_are_others_and_follow_from_the_seed() -> None:
    found = kinds.random_classes(3, 10, 1)
    assert len(set(found)) == 5
    assert 3 not in found
    assert found == kinds.random_classes(3, 10, 1) != kinds.random_classes(3, 10, 2)


def test_the_heat_map_covers_half_of_the_plane_once(tiny: Build) -> None:
    levels = [tuple(map(int, str(level).split(","))) for level in kinds.frequencies(tiny())]
    waves = torch.stack([fourier_basis(32, 32, row, column).flatten() for row, column in levels])
    same = (waves @ waves.T).abs() > 0.99
    assert torch.equal(same, torch.eye(34, dtype=torch.bool))  # each once
    every = {(sign * row % 32, sign * column % 32) for row, column in levels for sign in (1, -1)}
    assert every == {
        (row % 32, column % 32) for row in range(-16, 17, 4) for column in range(-16, 17, 4)
    }  # and all of them


def test_an_image_has_the_same_seed_wherever_it_stands() -> None:
    assert image_seed("cat/1.png", 0) == image_seed("cat/1.png", 0) != image_seed("cat/2.png", 0)
    assert image_seed("cat/1.png", 0) != image_seed("cat/1.png", 1)


# --- numbers ------------------------------------------------------------------------------------


def test_results_are_means_with_paired_differences_and_gaps_left_out() -> None:
    ours = [
        {"image": f"{i}", "values": {"a": [1.0, float(i % 2), None if i == 0 else 1.0]}}
        for i in range(4)
    ]
    theirs = [
        {"image": f"{i}", "values": {"a": [1.0, 0.0, 0.0]}} for i in (3, 2, 1, 0, 9)
    ]  # another order, one more
    levels = {"model": [0, 1, 2], "against": [0, 1, 2]}
    found = results.result({"model": ours, "against": theirs}, levels, scale=100, first=1)
    cells = found["curves"]["model"]["a"]
    assert [c["value"] for c in cells] == [100, 50, 100]
    assert [c["n"] for c in cells] == [4, 4, 3]
    assert found["differences"]["a"][1]["difference"] == 50
    assert found["differences"]["a"][2]["difference"] == 100
    assert found["headline"]["model"]["value"] == pytest.approx((0 + 100 + 50 + 100) / 4)
    assert found["headline"]["difference"] == pytest.approx((0 + 100 + 50 + 100) / 4)
    low, high = found["headline"]["difference_interval"]
    assert low < found["headline"]["difference"] < high


def test_models_of_other_depth_have_curves_of_their_own() -> None:
    ours = [{"image": f"{i}", "values": {"a": [1.0, 0.0]}} for i in range(3)]
    theirs = [{"image": f"{i}", "values": {"a": [1.0, 1.0, 0.0]}} for i in range(3)]
    levels = {"model": ["1", "2"], "against": ["1", "2", "3"]}
    found = results.result({"model": ours, "against": theirs}, levels, scale=100, first=0)
    assert "differences" not in found
    assert found["headline"]["difference"] == pytest.approx(50 - 200 / 3)


def test_a_loss_that_never_differs_has_no_interval() -> None:
    rows = [{"image": f"{i}", "values": {"loss": [0.5, float(i)]}} for i in range(5)]
    found = results.result(
        {"model": rows, "against": rows}, {"model": [0, 1], "against": [0, 1]}, scale=1, first=1
    )
    assert found["headline"]["difference"] == 0
    assert found["headline"]["difference_interval"] is None
    assert found["curves"]["model"]["loss"][0]["interval"] is None
    low, high = found["curves"]["model"]["loss"][1]["interval"]
    assert 0 < low < 2 < high < 4


def test_a_headline_may_count_one_series_alone() -> None:
    rows = [{"image": f"{i}", "values": {"a": [1.0], "b": [0.0]}} for i in range(3)]
    found = results.result({"model": rows}, {"model": ["x"]}, scale=100, first=0, headline=("a",))
    assert found["headline"]["model"]["value"] == 100


# --- the command --------------------------------------------------------------------------------


def run(*args: object) -> str:
    result = CliRunner().invoke(command.app, ["probe", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


@pytest.fixture
def folders(knowing: tuple[nn.Module, Path, Path], tiny: Build, tmp_path: Path) -> dict[str, Path]:
    model, images, masks = knowing
    loading.save(model, tmp_path / "tuned")
    loading.save(tiny(), tmp_path / "original")
    styles = tmp_path / "styles"
    styles.mkdir()
    for number in range(3):
        Image.fromarray(
            np.random.default_rng(number).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        ).save(styles / f"{number}.png")
    return {
        "model": tmp_path / "tuned",
        "against": tmp_path / "original",
        "images": images,
        "masks": masks,
        "styles": styles,
    }


@pytest.mark.usefixtures("quick")
def test_every_probe_from_folder_to_page(folders: dict[str, Path], tmp_path: Path) -> None:
    options = [part for name, path in folders.items() for part in (f"--{name}", path)]
    out = tmp_path / "probes"
    output = run(*options, "--out", out, "--kind", *LIGHT, "--most", 8, "--batch-size", 5)
    page = (out / "probes.html").read_text()
    for name in LIGHT:
        assert name in output
        assert f'id="{name}"' in page
        result = json.loads((out / name / "result.json").read_text())
        for which in ("model", "against"):
            lines = (out / name / f"{which}.jsonl").read_text().splitlines()
            assert len(lines) == result["n"][which] == 8
            assert all(
                c["value"] is None or c["n"]
                for row in result["curves"][which].values()
                for c in row
            )
        assert (out / name / "curve.png").stat().st_size > 1000
        assert (out / name / "manifest.json").exists()
        assert (out / name / "picture.png").exists() == (
            not registry.PROBES[name].numbers or registry.PROBES[name].picture is not None
        )
    plain = {
        r: json.loads((out / r / "result.json").read_text())["curves"]["model"]
        for r in ("cutout", "permutation")
    }
    found = evaluate(loading.load(folders["model"]), folders["images"]).predictions
    seen = {
        json.loads(x)["image"] for x in (out / "cutout" / "model.jsonl").read_text().splitlines()
    }
    top1 = 100 * np.mean([p.right for p in found if p.image in seen])
    assert (
        plain["cutout"]["hole"][0]["value"]
        == plain["permutation"]["shuffled"][0]["value"]
        == pytest.approx(top1)
    )
    assert len((out / "probes.csv").read_text().splitlines()) == len(LIGHT) + 1
    assert 'src="http' not in page  # self-contained


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
    run(*options, "--out", tmp_path / "one", "--kind", "fourier")
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


def test_bad_input_is_said_before_anything_is_written(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--model", folders["model"], "--images", folders["images"], "--out", tmp_path / "o"]
    for more, message in (
        (["--kind", "blur"], "--kind blur: unknown; legal are all, fgsm"),
        (["--kind", "shapes"], "--kind shapes: needs --masks"),
        (["--kind", "stylization", "--styles", tmp_path / "nothing"], "--styles"),
        (["--kind", "cutout", "--saliency", "lime"], "--saliency lime: legal are"),
        (["--kind", "imagenet-c"], "needs --imagenet-c"),
        (["--kind", "cutout", "--mapping", "x.json"], "only with --cues"),
    ):
        with pytest.raises(InputError, match=message):
            run(*options, *more)
    with pytest.raises(InputError, match="--images: missing"):
        run(*options[:2], *options[4:], "--kind", "cutout")
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"--kind pgd: needs foolbox: pip install 'refocus-vit\[attacks\]'"
    ):
        run(*options, "--kind", "pgd")
    assert not (tmp_path / "o").exists()


def test_all_leaves_out_what_cannot_be_run_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="refocus"):
        found = registry.names(["all"], Options())
    assert "cutout" in found
    assert not {
        "shapes",
        "stylization",
        "shape-bias",
        "imagenet-c",
        "attention-segmentation",
    } & set(found)
    assert "shapes is left out: it needs --masks" in caplog.text


def test_all_leaves_out_what_a_model_cannot_take_unless_it_was_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    parallel, oblong = (ZOO["ViT"][name]() for name in ("parallel attention and MLP", "non-square"))
    with caplog.at_level("INFO", logger="refocus"):
        assert registry.supported(["surgery", "cutout"], ["all"], [parallel]) == ["cutout"]
        assert registry.supported(["rotation", "cutout"], ["all"], [oblong]) == ["cutout"]
    assert "surgery is left out" in caplog.text
    with pytest.raises(InputError, match="cannot be taken out alone"):
        registry.supported(["surgery", "cutout"], ["all", "surgery"], [parallel])


def test_zero_shot_models_and_models_without_blocks(
    knowing: tuple[nn.Module, Path, Path], tmp_path: Path
) -> None:
    _, images, masks = knowing
    clip = ZOO["zero-shot CLIP, SigLIP"]["CLIP"]()
    plan = measure.Plan(images, Options(masks=masks), tmp_path, 4, refs={"model": "clip"})
    for name in (
        "occlusion",
        "surgery",
        "class-tokens",
        "rotation",
        "attention-segmentation",
        "local-attention",
    ):
        assert measure.run(name, {"model": clip}, plan)["n"]["model"] == 4

    class Own(nn.Module):
        num_classes, prefix = 4, 0
        attention_maps = readout = grid = nn.Module.forward

    with pytest.raises(InputError, match="does not say which modules its blocks are"):
        registry.supported(["surgery"], ["surgery"], [Own()])


def test_cue_conflict_stimuli(knowing: tuple[nn.Module, Path, Path], tmp_path: Path) -> None:
    model, images, _ = knowing
    cues = tmp_path / "cues"
    for shape, texture in (("cat", "dog"), ("dog", "cat"), ("ant", "ant"), ("bee", "cat")):
        (cues / shape).mkdir(parents=True, exist_ok=True)
        shutil.copy(images / shape / "0.png", cues / shape / f"{shape}1-{texture}2.png")
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
    result = json.loads((tmp_path / "o" / "shape-bias" / "result.json").read_text())
    (cell,) = result["curves"]["model"]["decisions for the shape"]
    assert result["n"]["model"] == 4
    assert cell["n"] <= 2  # agreeing and unknown cues do not count
    values = {
        line["image"]: line["values"] for line in read_lines(tmp_path / "o/shape-bias/model.jsonl")
    }
    assert (
        values["ant/ant1-ant2.png"]
        == values["bee/bee1-cat2.png"]
        == {"decisions for the shape": [None]}
    )


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
    result = json.loads((tmp_path / "o" / "imagenet-c" / "result.json").read_text())
    curves = result["curves"]["model"]
    assert len(curves) == 15
    assert curves["fog"][0]["value"] == 25
    assert curves["snow"][0]["value"] > 60
    errors = {
        name: 1 - np.mean([cell["value"] for cell in cells]) / 100 for name, cells in curves.items()
    }
    assert result["summary"]["model"]["mce"] == pytest.approx(
        corruptions.mean_corruption_error(errors)
    )
    assert "mCE (model)" in (tmp_path / "o" / "probes.html").read_text()


def test_the_list_and_the_report(folders: dict[str, Path], tmp_path: Path) -> None:
    listed = CliRunner().invoke(command.app, ["probes"], env={"COLUMNS": "200"}).output
    for name in registry.PROBES:
        assert name in listed
    run(
        "--model",
        folders["model"],
        "--images",
        folders["images"],
        "--out",
        tmp_path / "o",
        "--kind",
        "cutout",
        "--most",
        4,
    )
    page = (tmp_path / "o" / "probes.html").read_text()
    (tmp_path / "o" / "probes.html").unlink()
    result = CliRunner().invoke(
        command.app, ["report", str(tmp_path / "o")], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert (tmp_path / "o" / "probes.html").read_text() == page


def test_perturbed_answers_are_those_of_the_perturbed_pixels(tiny: Build) -> None:
    b = batch(tiny(), 6)
    found = answers(b, kinds.cutout)["hole"]
    views = [pixels for _, pixels in kinds.cutout(b)]
    for column, pixels in enumerate(views):
        assert torch.equal(found[:, column], (b.logits(pixels).argmax(1) == b.labels).float())
    assert not torch.equal(views[0], views[-1])
