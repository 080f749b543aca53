"""Other ways to masks than ours: the same records, scores and page, whatever finds them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from refocus import InputError, MaskSettings, fingerprints
from refocus.masks import finders
from refocus.masks.backends.checkpoints import Checkpoint, squashed
from refocus.masks.backends.prompted import box_of, prompted
from refocus.masks.backends.protocol import Found
from refocus.masks.backends.semantic import foreground
from refocus.masks.choice import backend_of
from refocus.masks.folder import MaskFolder, find_masks
from tests.makers import run
from tests.masks.segmenters import MAKERS

OBJECT = (slice(10, 30), slice(12, 40))  # rows and columns of the bright square
RECORD = {"image", "mask", "digest", "of", "score", "area", "border", "parts", "largest"}
RECORD |= {"agreement", "edges", "doubts"}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A cat and a bee: 52 x 36 pixels, a bright square on noise."""
    for name in ("cat", "bee"):
        pixels = np.random.default_rng(0).integers(0, 90, (36, 52, 3), dtype=np.uint8)
        pixels[OBJECT] = (240, 220, 40)
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "images" / name / "0.png")
    return tmp_path / "images"


def tiny(name: str, folder: Path) -> Path:
    pytest.importorskip("transformers")
    (folder / name).mkdir()
    MAKERS[name](folder / name)
    return folder / name


def found(images: Path, out: Path, backend: str, **settings: Any) -> MaskFolder:
    made = find_masks(images, out, MaskSettings(backend=backend, device="cpu", **settings))
    assert made is not None
    return made


def records(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "masks.json").read_text())["masks"]


@pytest.mark.parametrize("name", [*MAKERS])
def test_every_kind_of_model_gives_masks_records_and_a_page(
    name: str, images: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refocus.masks.backends.text._BOX", 0.0)  # of a network without training
    folder, out, more = tiny(name, tmp_path), tmp_path / "out", {}
    kind = "text" if name in ("clipseg", "grounding_dino") else "hf"
    ref = f"{kind}:{folder}"
    if name == "grounding_dino":
        ref += f",{tiny('sam2', tmp_path)}"
    if name in ("sam", "sam2"):
        more = {"backbone": str(model_folder), "size": 64}
    made = found(images, out, ref, **more)
    assert set(made.scores) == {"bee/0.png", "cat/0.png"}
    assert all(set(record) == RECORD for record in records(out))
    assert all(0 <= record["agreement"] <= 1 for record in records(out))
    with Image.open(out / "cat" / "0.png") as mask:
        assert mask.size == (52, 36)
    assert (out / "contact_sheet.html").read_text().count("<figure>") == 2


# --- rembg ----------------------------------------------------------------------------------------


@pytest.fixture
def rembg(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stand-in that marks what is bright; the sessions that were asked for."""
    asked: list[str] = []

    class Session(str):
        @classmethod
        def download_models(cls) -> str:
            return f"{os.environ.get('U2NET_HOME', 'nowhere')}/u2net.onnx"

    def new_session(model: str) -> str:
        if model == "none":
            raise ValueError("No session class found for model 'none'\nmore")
        asked.append(model)
        return Session(model)

    def remove(image: Image.Image, *, session: str, only_mask: bool) -> Image.Image:
        assert session == asked[-1]
        assert only_mask
        return Image.fromarray((np.asarray(image)[..., 0] > 200).astype(np.uint8) * 200)

    module = ModuleType("rembg")
    vars(module).update(new_session=new_session, remove=remove)
    monkeypatch.setitem(sys.modules, "rembg", module)
    return asked


def test_rembg_masks_what_its_session_marks(
    rembg: list[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    given = ("--out", out, "--backend", "rembg:isnet-general-use")
    assert run(monkeypatch, "masks", images, *given) == 0
    assert rembg == ["isnet-general-use"]
    mask = np.asarray(Image.open(out / "cat" / "0.png"))
    assert mask[OBJECT].all()
    assert mask.astype(bool).sum() == 20 * 28
    assert records(out)[0]["agreement"] == 1  # at 0.25 and at 0.75 the same
    made = found(images, tmp_path / "default", "rembg")
    assert rembg[-1] == "u2net"
    assert found(images, tmp_path / "default", "rembg") == made  # goes on, and is complete
    with pytest.raises(InputError, match="was started with other"):
        found(images, tmp_path / "default", "rembg:isnet-general-use")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("rembg:none",), "--backend rembg:none: cannot be loaded (No session class found"),
        (("rembg:a,b",), "--backend rembg:a,b: must be ours, rembg, rembg:MODEL, hf:ID, text:ID"),
        (("u2net",), "--backend u2net: must be ours, rembg"),
        (("hf:",), "--backend hf:: must be ours, rembg"),
        (("rembg", "--size", 512), "--size 512: only for our own masks, not for --backend rembg"),
        (("rembg", "--refine", "none"), "--refine none: only for our own masks"),
        (("rembg", "--from", "png", "x"), "--backend rembg: not with --from, which has the masks"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(
    rembg: list[str],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    said: str,
) -> None:
    given = ("--out", tmp_path / "out", "--backend", *options)
    assert run(monkeypatch, "masks", images, *given) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_what_is_not_read_is_said_before_weights_are(
    rembg: list[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="size 512: only for our own masks"):
        found(images, tmp_path / "out", "rembg", size=512)
    assert rembg == []
    folder = tiny("segformer", tmp_path)
    monkeypatch.setattr(Checkpoint, "model", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(InputError, match="size 512: only for our own masks"):
        found(images, tmp_path / "out", f"hf:{folder}", size=512)


def test_masks_of_a_backend_that_changed_are_not_gone_on_with(
    rembg: list[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    (tmp_path / "u2net.onnx").write_text("one")
    found(images, tmp_path / "out", "rembg")
    (tmp_path / "u2net.onnx").write_text("another")
    with pytest.raises(InputError, match="was started with other"):
        found(images, tmp_path / "out", "rembg")
    # as if the folder were a hub's name: its weights tell, and nothing else does
    folder = tiny("segformer", tmp_path)
    monkeypatch.setattr(fingerprints, "of_model", lambda ref: [ref])
    monkeypatch.setattr(fingerprints, "is_known", lambda _ref: False)
    assert found(images, tmp_path / "hub", f"hf:{folder}") == found(
        images, tmp_path / "hub", f"hf:{folder}"
    )
    weights = load_file(folder / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, folder / "model.safetensors")
    with pytest.raises(InputError, match="was started with other"):
        found(images, tmp_path / "hub", f"hf:{folder}")


def test_weights_in_several_files_are_part_of_what_a_folder_is(tmp_path: Path) -> None:
    for name in ("config.json", "model-00001-of-00002.safetensors"):
        (tmp_path / name).write_text("one")
    before = fingerprints.of_model(str(tmp_path))
    (tmp_path / "model-00001-of-00002.safetensors").write_text("another")
    assert fingerprints.of_model(str(tmp_path)) != before


def test_a_comma_in_a_path_is_part_of_it(tmp_path: Path) -> None:
    one, other = tmp_path / "a,b", tmp_path / "c,d,e"
    one.mkdir()
    other.mkdir()
    for ref, names in (
        (f"hf:{one}", (str(one),)),
        (f"text:{one}", (str(one),)),
        (f"text:{one},{other}", (str(one), str(other))),
        (f"text:some/detector, {other}", ("some/detector", str(other))),
        ("text:some/detector,some/sam", ("some/detector", "some/sam")),
    ):
        assert backend_of(ref) == (ref.partition(":")[0], names)
    for ref in ("text:a,b,c", f"text:{one},{other},x", "rembg:a,b", "text:,b", "text:a,"):
        with pytest.raises(InputError, match="must be ours, rembg"):
            backend_of(ref)


def test_rembg_that_is_not_there_names_its_extra(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(
        InputError, match=r"not installed; run `pip install 'refocus-vit\[rembg\]'`"
    ):
        found(images, tmp_path / "out", "rembg")


# --- transformers ---------------------------------------------------------------------------------


def test_checkpoints_of_another_kind_are_refused(images: Path, tmp_path: Path) -> None:
    folders = {name: tiny(name, tmp_path) for name in ("segformer", "clipseg", "sam")}
    own = tmp_path / "own"
    own.mkdir()
    config = {"model_type": "cutter", "auto_map": {"AutoConfig": "code.Config"}}
    (own / "config.json").write_text(json.dumps(config))
    (own / "code.py").write_text("raise SystemExit('was run')")
    for ref, said in (
        (f"hf:{folders['clipseg']}", "is a clipseg, which .* by name; must be backend=text:"),
        (f"text:{folders['segformer']}", "is a segformer; must be one of clipseg"),
        (f"text:{folders['sam']},{folders['sam']}", "is a sam; must be one of grounding-dino"),
        (f"text:{folders['clipseg']},{folders['segformer']}", "is a segformer; must be one of sam"),
        (f"hf:{own}", "needs code that comes with it .* are in backend=rembg"),
        (f"hf:{tmp_path / 'absent'}", "backend hf:.* cannot be loaded"),
        (f"text:{tmp_path / 'absent'}", "backend text:.* cannot be loaded"),
    ):
        with pytest.raises(InputError, match=said):
            found(images, tmp_path / "out", ref)
    assert not (tmp_path / "out").exists()


def test_a_model_without_masks_is_refused(images: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    with pytest.raises(InputError, match="a vit makes no masks"):
        found(images, tmp_path / "out", f"hf:{tmp_path / 'vit'}")


def test_images_in_no_class_folder_cannot_be_looked_for_by_name(
    images: Path, tmp_path: Path
) -> None:
    ref = f"text:{tiny('clipseg', tmp_path)}"
    with pytest.raises(InputError, match="lies in no class folder, so backend has no name"):
        found(images / "cat", tmp_path / "out", ref)


@pytest.mark.parametrize(
    ("labels", "name", "expected"),
    [
        (("background", "cat, kitten", "bee"), "kitten", 0.3),
        (("background", "Cat", "bee", "cat"), "cat", 0.7),
        (("background", "cat", "bee"), "dog", 0.8),
        (("background", "cat", "bee"), "", 0.8),
        (("object",), "cat", 0.2),
    ],
)
def test_the_class_of_an_image_counts_or_all_but_the_background(
    labels: tuple[str, ...], name: str, expected: float
) -> None:
    classes = torch.tensor([0.2, 0.3, 0.5, 0.4])[: len(labels), None, None]
    assert foreground(classes, labels, name).item() == pytest.approx(expected)


def test_a_class_that_the_model_lacks_is_named() -> None:
    said = "none of the 2 labels of backend is called 'dog' or 'background'; the first are cat, bee"
    with pytest.raises(InputError, match=said):
        foreground(torch.zeros(2, 1, 1), ("cat", "bee"), "dog")


def test_the_whole_image_is_seen_though_the_processor_crops() -> None:
    transformers = pytest.importorskip("transformers")
    processor = transformers.ViTImageProcessor(
        size={"shortest_edge": 32}, do_center_crop=True, crop_size={"height": 24, "width": 24}
    )
    wide = Image.fromarray(np.repeat(np.linspace(0, 255, 90).astype(np.uint8)[None], 30, 0))
    values = squashed(wide.convert("RGB"), processor, torch.nn.Linear(1, 1))
    row = values[0, 0, values.shape[2] // 2]
    assert float(row[0]) == pytest.approx(-1, abs=0.06)  # black at the left edge
    assert float(row[-1]) == pytest.approx(1, abs=0.06)


def test_a_prompt_is_the_box_of_our_mask_which_is_the_second_opinion(images: Path) -> None:
    rough = np.zeros((36, 52), np.float32)
    rough[10:20, 12:40] = 1  # half of the object
    asked: list[object] = []

    def masks(image: Image.Image, boxes: list[Any]) -> np.ndarray:
        asked.extend(boxes)
        return (np.asarray(image)[..., 0] > 200).astype(np.float32)

    backend = prompted(masks, lambda _image, _name: Found(rough))
    (outcome,) = finders.seen(backend, images)([images / "cat" / "0.png"])
    assert asked == [(12, 10, 40, 20)] == [box_of(rough > 0.5)]
    assert outcome.agreement == pytest.approx(0.5)
    assert np.asarray(outcome.mask)[OBJECT].all()
    empty = prompted(masks, lambda _image, _name: Found(0 * rough))
    (outcome,) = finders.seen(empty, images)([images / "cat" / "0.png"])
    assert outcome.mask is None
    assert outcome.problem.endswith(
        "cat/0.png: our own mask, whose box prompts ‹backend›, is empty"
    )


def test_a_wordnet_id_is_asked_for_by_its_name(images: Path) -> None:
    asked: list[str] = []
    (images / "bee").rename(images / "n02510455")
    (images / "cat").rename(images / "house_cat")

    def backend(_image: Image.Image, name: str) -> Found:
        asked.append(name)
        return Found(np.eye(36, 52, dtype=np.float32))

    files = sorted(images.rglob("*.png"))
    assert len([*finders.seen(backend, images)(files)]) == 2
    assert asked == ["house cat", "giant panda"]
