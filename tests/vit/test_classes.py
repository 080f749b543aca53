"""Which class an output is: names decide, orders that disagree are refused, counts say nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.data import ImageNetInfo
from torch import nn
from torchvision.models import VisionTransformer
from transformers import ViTConfig, ViTForImageClassification

import refocus
from refocus import InputError
from refocus.data.folders import outputs_of
from refocus.errors import Message
from refocus.vit import classes
from refocus.vit.loading import load_models
from tests.makers import Build

WNIDS = ImageNetInfo().label_names()
ENGLISH = [ImageNetInfo().index_to_description(i) for i in range(1000)]


def named(tiny: Build, names: list[str] | None, count: int | None = None) -> nn.Module:
    model = tiny(num_classes=len(names) if names else count)
    model.pretrained_cfg["label_names"] = names
    return model


# --- orders -------------------------------------------------------------------------------------

DISAGREE = {
    "numbers without zeros": [f"class{i}" for i in range(1, 13)],
    "bare numbers": [str(i) for i in range(11)],
    "capitals": ["Zebra", "ant", "bee"],
    "numbers within": ["sku-9-red", "sku-10-red", "sku-11"],
}
AGREE = {
    "zeros": [f"class{i:02d}" for i in range(1, 13)],
    "words": ["ant", "bee", "cat"],
    "few numbers": ["0", "1", "2"],
}


@pytest.mark.parametrize("folders", DISAGREE.values(), ids=DISAGREE.keys())
def test_folders_that_libraries_order_differently_are_refused(
    tiny: Build, folders: list[str]
) -> None:
    with pytest.raises(InputError) as refusal:
        outputs_of(named(tiny, None, len(folders)), folders, "here")
    strings, natural = (classes.by_order(folders, order) for order in ("string", "natural"))
    said = str(refusal.value)
    assert strings[0] in said
    assert natural[0] in said
    assert "order=string" in said
    assert "order=natural" in said
    for order, expected in (("string", strings), ("natural", natural)):
        model = named(tiny, None, len(folders))
        classes.set_order(model, order)
        assert outputs_of(model, folders, "here") == {name: i for i, name in enumerate(expected)}
        assert classes.class_names(model) == expected  # from now on they are its names


@pytest.mark.parametrize("folders", AGREE.values(), ids=AGREE.keys())
def test_folders_in_one_order_name_the_outputs(tiny: Build, folders: list[str]) -> None:
    found = outputs_of(named(tiny, None, len(folders)), folders[::-1], "here")
    assert found == {name: i for i, name in enumerate(folders)}


def test_the_orders_are_those_of_timm_and_torchvision(tmp_path: Path) -> None:
    from PIL import Image
    from timm.data import create_dataset
    from torchvision.datasets import ImageFolder

    for folder in [*DISAGREE["numbers without zeros"], "Ant", "b10", "B9"]:
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / folder / "0.png")
    folders = [p.name for p in tmp_path.iterdir()]
    natural = create_dataset("", str(tmp_path)).reader.class_to_idx
    strings = ImageFolder(str(tmp_path)).class_to_idx
    for order, theirs in (("natural", natural), ("string", strings)):
        assert {n: i for i, n in enumerate(classes.by_order(folders, order))} == theirs


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "b\na\nc\n"),
        ("bom.txt", "\ufeffb\r\na\r\nc\r\n"),
        ("list.json", '["b", "a", "c"]'),
        ("config.json", '{"id2label": {"0": "b", "1": "a", "2": "c"}}'),
    ],
)
def test_names_from_a_file_name_the_outputs(
    tiny: Build, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    model = named(tiny, None, 3)
    refocus.save(model, tmp_path / "model")
    for loaded in (
        refocus.load(tmp_path / "model", names=tmp_path / name),
        refocus.load(f"{tmp_path / 'model'}?names={tmp_path / name}"),
    ):
        assert outputs_of(loaded, ["a", "b", "c"], "here") == {"b": 0, "a": 1, "c": 2}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], "2 class names, but the model has 3 outputs"),
        (["a", "b", "a"], "'a' is the name of outputs 0 and 2"),
        ([], "names: 0 class names"),
        ({"b", "a", "c"}, "names: set .*must be a list of names in the order"),
        ({"b": 0, "a": 1, "c": 2}, "names has the keys b, a, c; must be 0 to 2"),
        (b"bac", "names: bytes b'bac'; must be a list"),
        (3, "names: int 3; must be a list"),
        (["b", None, "c"], "names: holds None; must hold texts"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    tiny: Build, tmp_path: Path, names: Any, message: str
) -> None:
    refocus.save(named(tiny, None, 3), tmp_path / "model")
    with pytest.raises(InputError, match=message):
        refocus.load(tmp_path / "model", names=names)


@pytest.mark.parametrize(
    "names",
    [("b", "a", "c"), (n for n in "bac"), {1: "a", 0: "b", 2: "c"}, np.array(["b", "a", "c"])],
    ids=["tuple", "generator", "dictionary", "array"],
)
def test_names_in_whatever_has_an_order_name_the_outputs(
    tiny: Build, tmp_path: Path, names: Any
) -> None:
    refocus.save(named(tiny, None, 3), tmp_path / "model")
    loaded = refocus.load(tmp_path / "model", names=names)
    assert classes.label_names(loaded) == ["b", "a", "c"]


def test_names_that_a_model_carries_are_not_put_in_another_order(
    tiny: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refocus.save(named(tiny, ["cat", "dog"], 2), tmp_path / "model")
    refocus.save(named(tiny, None, 2), tmp_path / "bare")
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    given = [f"{tmp_path / which}?names={tmp_path / 'names.txt'}" for which in ("model", "bare")]
    with pytest.raises(InputError, match="in another order: output 0 is 'cat' there and 'dog'"):
        refocus.load(given[0])
    refocus.load(tmp_path / "model", names=["cat", "dog"])
    assert not caplog.records
    both = load_models(*given, torch.device("cpu"))  # those without names alone take them
    assert [classes.label_names(m) for m in both.values()] == [["cat", "dog"], ["dog", "cat"]]
    with pytest.raises(InputError, match="in another order"):
        load_models(given[0], given[0], torch.device("cpu"))
    assert classes.label_names(refocus.load(tmp_path / "model", names=["x", "y"])) == ["x", "y"]
    assert "output 0 was 'cat' and is 'x'" in caplog.text


# --- identity -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (WNIDS, list(range(1000))),
        (WNIDS[::-1], list(range(999, -1, -1))),
        (ENGLISH, list(range(1000))),
        ([name.split(",")[0] for name in ENGLISH], list(range(1000))),
        ([*WNIDS[500:], *WNIDS[:500]], [*range(500, 1000), *range(500)]),
        ([f"product {i}" for i in range(1000)], None),
        ([*WNIDS[:-1], "soap"], None),
    ],
    ids=["ids", "ids reversed", "English", "first words", "halves", "products", "one other"],
)
def test_imagenets_classes_are_known_by_name(
    tiny: Build, names: list[str], expected: list[int] | None
) -> None:
    found = classes.imagenet_outputs(named(tiny, names))
    assert (None if found is None else list(found)) == expected


def test_a_thousand_outputs_without_names_are_imagenets_unless_an_order_is_given(
    tiny: Build,
) -> None:
    model = named(tiny, None, 1000)
    assert classes.imagenet_outputs(model) == tuple(range(1000))
    classes.set_order(model, "natural")
    assert classes.imagenet_outputs(model) is None
    assert classes.folder_names(model) is None


def test_an_order_that_is_not_needed_is_said_with_the_marks_of_its_option(
    tiny: Build, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="refocus"):
        classes.set_order(named(tiny, ["ant", "bee"]), "natural")
    (record,) = caplog.records
    assert isinstance(record.msg, Message)
    assert record.getMessage().startswith("order natural: not needed")


def test_synonyms_are_left_out_where_the_first_is_enough(tiny: Build) -> None:
    brief = classes.brief_names(named(tiny, None, 1000))
    assert brief[105] == "koala"  # koala bear, kangaroo bear, native bear, ...
    assert brief[638:640] == ["maillot", "maillot, tank suit"]
    assert len(set(brief)) == 1000
    assert classes.brief_names(named(tiny, ["a", "b, c"])) == ["a", "b"]


@pytest.mark.parametrize("folder", ["n01440764", "tench", "Tench", "tinca_tinca"])
def test_folders_of_imagenet_models_may_have_english_names(tiny: Build, folder: str) -> None:
    assert outputs_of(named(tiny, None, 1000), [folder], "here") == {folder: 0}
    assert outputs_of(named(tiny, WNIDS[::-1]), [folder], "here") == {folder: 999}


def test_two_folders_of_one_class_are_refused(tiny: Build) -> None:
    with pytest.raises(InputError, match="tench and n01440764 are the same class"):
        outputs_of(named(tiny, None, 1000), ["tench", "n01440764"], "here")
    with pytest.raises(InputError, match="knows no class 'crane'"):  # a bird or a machine
        outputs_of(named(tiny, None, 1000), ["crane"], "here")


@pytest.mark.parametrize(
    ("known", "folder"), [("cat", "Cat"), ("traffic light", "traffic_light"), ("zebra", "zebras")]
)
def test_a_near_miss_is_told(tiny: Build, known: str, folder: str) -> None:
    with pytest.raises(InputError, match=f"did you mean '{known}'"):
        outputs_of(named(tiny, [known, "other"]), [folder], "here")


@pytest.mark.parametrize("pair", [("café", "cafe\u0301"), ("ü", "u\u0308"), ("å", "a\u030a")])
def test_names_are_compared_as_they_look(tiny: Build, pair: tuple[str, str]) -> None:
    for mine, theirs in (pair, pair[::-1]):
        assert outputs_of(named(tiny, ["x", mine]), [theirs], "here") == {theirs: 1}


# --- heads --------------------------------------------------------------------------------------


def timm_folder(folder: Path, outputs: int, **config: object) -> Path:
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=1,
        num_heads=3,
        num_classes=outputs,
    )
    refocus.save(model, folder)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **config}))
    return folder


@pytest.mark.parametrize(
    ("outputs", "config", "message"),
    [
        (1, {}, "one output, so there is nothing to choose between"),
        (3, {"label_names": ["a", "b", "a"]}, "'a' is the name of outputs 0 and 2"),
        (3, {"label_names": ["a", "b"]}, "names 2 classes but has 3 outputs"),
        (2, {"label_names": ["a", "b", "c"]}, "names 3 classes but has 2 outputs"),
        (3, {"label_names": ["a", "e\u0301", "\u00e9"]}, "is the name of outputs 1 and 2"),
        (3, {"label_names": {"0": "a", "5": "b", "9": "c"}}, "an object of index, from 0 or 1 on"),
    ],
)
def test_heads_whose_answer_says_nothing_are_refused(
    tmp_path: Path, outputs: int, config: dict[str, object], message: str
) -> None:
    folder = timm_folder(tmp_path / "model", outputs, **config)
    with pytest.raises(InputError, match=message):
        refocus.load(folder)
    if outputs == 3:  # names that are given decide
        names = ["x", "y", "z"]
        assert classes.class_names(refocus.load(folder, names=names)) == names


def transformers_folder(folder: Path, change: Callable[[dict], None] = lambda _c: None) -> Path:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=48,
        image_size=32, patch_size=8, id2label={0: "a", 1: "b", 2: "c"},
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    for name in ("config.json", "preprocessor_config.json"):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
    return folder


def change(name: str, value: object) -> Callable[[dict], None]:
    """Of whichever of the two files holds `name`."""

    def apply(content: dict) -> None:
        if name in content or (name == "problem_type" and "id2label" in content):
            content[name] = value

    return apply


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("problem_type", "multi_label_classification", "problem_type is multi_label"),
        ("problem_type", "regression", "problem_type is regression"),
        ("id2label", {"0": "a", "1": "b", "2": "a"}, "'a' is the name of outputs 0 and 2"),
        ("id2label", {"0": "a", "1": "b", "7": "c"}, "id2label has the keys 0, 1, 7"),
        ("id2label", {"0": "a", "1": "e\u0301", "2": "\u00e9"}, "is the name of outputs 1 and 2"),
        ("label2id", {"a": 1, "b": 0, "c": 2}, "'a' comes before 'b', .* are 1 and 0"),
        ("label2id", {"c": 1, "b": 2, "a": 3}, "'a' comes before 'b', .* are 3 and 2"),
        ("label2id", {"a": 0, "b": 0, "c": 2}, "label2id they are 0 and 0"),
        ("label2id", {"a": "x"}, "no table of numbers"),
        ("id2label", {"0": "a", "1": "b"}, "weights are of another shape than its config.json"),
        ("size", {"height": 48, "width": 48}, "makes 48x48 pixels, the model takes 32x32"),
    ],
)
def test_checkpoints_of_transformers_that_cannot_be_scored_are_refused(
    tmp_path: Path, name: str, value: object, message: str
) -> None:
    folder = transformers_folder(tmp_path / "model", change(name, value))
    with pytest.raises(InputError, match=message):
        refocus.load(folder)


def test_id2label_may_count_from_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = {"1": "a", "2": "b", "3": "c"}
    with caplog.at_level("INFO", "refocus"):
        model = refocus.load(transformers_folder(tmp_path / "model", change("id2label", labels)))
    assert classes.class_names(model) == ["a", "b", "c"]
    assert "counts from 1" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(tiny: Build, tmp_path: Path, value: float) -> None:
    model = tiny()
    model.blocks[1].mlp.fc1.weight.data[0, 0] = value
    refocus.save(model, tmp_path / "model")
    with pytest.raises(InputError, match=r"blocks\.1\.mlp\.fc1\.weight holds values"):
        refocus.load(tmp_path / "model")


@pytest.mark.parametrize("first", [0, 1])
def test_label2id_that_agrees_is_no_contradiction(tmp_path: Path, first: int) -> None:
    numbers = {name: first + i for i, name in enumerate("abc")}
    model = refocus.load(transformers_folder(tmp_path / "model", change("label2id", numbers)))
    assert classes.class_names(model) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ({"b": 0, "c": 1, "a": 2}, ["b", "c", "a"]),
        ({"b": 1, "c": 2, "a": 3}, ["b", "c", "a"]),
        ({"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}, None),
        ({"a": 0, "b": 1}, r"label2id of its config.json numbers 2 classes, .* has 3 outputs"),
        ({"a": 0, "b": 0, "c": 2}, r"numbers 2 classes, and the model has 3 outputs"),
        ({"a": 0, "b": 1, "c": 5}, r"label2id has the keys 0, 1, 5"),
    ],
)
def test_label2id_alone_names_the_outputs(
    numbers: dict[str, int], found: list[str] | str | None, tmp_path: Path
) -> None:
    """Transformers forgets it then, and the folders' order would decide."""

    def alone(content: dict) -> None:
        if content.pop("id2label", None):
            content |= {"num_labels": 3, "label2id": numbers}

    folder = transformers_folder(tmp_path / "model", alone)
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            refocus.load(folder)
    else:
        assert classes.label_names(refocus.load(folder)) == found


@pytest.mark.parametrize("keys", [("0", "5"), ("2", "3"), ("0", "00")])
def test_a_file_of_names_has_no_gaps(tmp_path: Path, keys: tuple[str, str]) -> None:
    (tmp_path / "names.json").write_text(json.dumps(dict(zip(keys, "ab", strict=True))))
    with pytest.raises(InputError, match="must be 0 to 1, each once"):
        classes.read_names(tmp_path / "names.json")


@pytest.mark.parametrize("name", ["\u00b2", "m\u00b2", "\u0663", "2\u00b2"])
def test_any_digit_can_be_ordered(name: str) -> None:
    assert set(classes.by_order([name, "a1", "1a"], "natural")) == {name, "a1", "1a"}


def _timm() -> nn.Module:
    found: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, depth=1, embed_dim=24, num_heads=2
    )
    return found


def _of_transformers() -> nn.Module:
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(**sizes, intermediate_size=48, num_labels=1000)
    model = ViTForImageClassification(config)
    model.pretrained_cfg = {"num_classes": 1000}
    return model


@pytest.mark.parametrize(
    ("make", "head"),
    [
        (_timm, "head"),
        (_of_transformers, "classifier"),
        (lambda: VisionTransformer(32, 16, 1, 2, 24, 48), "heads.head"),
    ],
    ids=["timm", "transformers", "torchvision"],
)
def test_a_model_with_another_head_is_not_called_by_imagenets_names(
    make: Callable[[], nn.Module], head: str
) -> None:
    model = make()
    assert len(classes.folder_names(model) or []) == 1000
    model.set_submodule(head, nn.Linear(24, 7))
    assert classes.folder_names(model) is classes.class_names(model) is None
    outputs = outputs_of(model, WNIDS[:7][::-1], "here")  # named by the folders, as any other
    assert outputs == {name: i for i, name in enumerate(sorted(WNIDS[:7]))}
