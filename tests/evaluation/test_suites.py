"""The paper's test sets in their real layouts, in miniature, under both protocols."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo
from torch import Tensor, nn

import refocus
from refocus.data.trained import trained_classes
from refocus.evaluation import classify
from refocus.evaluation.plan import Plan
from refocus.evaluation.suites import SUITES, open_suite

TENCH, GOLDFISH, STINGRAY = 0, 1, 6  # torch's indices; 6 is in ImageNet-A, 0 is not
STEP = 40  # between the colours of two numbers, so that JPEG cannot mix them up


class Told(nn.Module):
    """A classifier that is told its answers.

    The number of an image (see `write`) -> class indices, best first.
    """

    def __init__(self, answers: dict[int, list[float]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.num_classes, self.answers = 1000, answers
        self.pretrained_cfg = {
            "input_size": (3, 32, 32),
            "crop_pct": 1.0,
            "mean": (0, 0, 0),
            "std": (1, 1, 1),
            "interpolation": "bicubic",
        }

    def forward(self, images: Tensor) -> Tensor:
        """Read the number of each image from its centre.

        It is red between blue (always 0) and green (always 255), however pixels are normalized.
        """
        red, green, blue = images[:, :, 16, 16].unbind(1)
        numbers = (255 / STEP * (red - blue) / (green - blue)).round().long()
        logits = torch.zeros(len(images), 1000)
        for row, value in enumerate(numbers.tolist()):
            for rank, index in enumerate(self.answers[value]):
                logits[row, index] = 10 - rank
        return logits


HEAD = "ImageId,PredictionString\n"


def write(path: Path, number: int = 0, size: int = 48, border: int = 0) -> None:
    """An even image that carries a number in its colour; the border is red."""
    pixels = np.zeros((size, size, 3), dtype=np.uint8)
    pixels[:] = (STEP * number, 255, 0)
    if border:
        frame = np.ones((size, size), dtype=bool)
        frame[border:-border, border:-border] = False
        pixels[frame] = (255, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=100)


def objectnet(root: Path) -> None:
    """Two mapped classes, one of them with two ImageNet classes, and one not mapped."""
    for number, folder in enumerate(("alarm_clock", "banana", "squeegee")):
        write(root / "images" / folder / "0a1b.png", number, border=2)
    mappings = root / "mappings"
    mappings.mkdir()
    label_of = {"alarm_clock": "Alarm clock", "banana": "Banana", "squeegee": "Squeegee"}
    (mappings / "folder_to_objectnet_label.json").write_text(json.dumps(label_of))
    (mappings / "objectnet_to_imagenet_1k.json").write_text(
        json.dumps({"Alarm clock": "analog clock; digital clock", "Banana": "banana"})
    )
    # lines count from 0; the numbers are another order than torch's
    (mappings / "imagenet_to_label_2012_v2").write_text("banana\ndigital clock\nanalog clock\n")
    (mappings / "pytorch_to_imagenet_2012_id.json").write_text(
        json.dumps({"409": 2, "530": 1, "954": 0})
    )


def tree(name: str, root: Path) -> dict[str, int]:
    """A data set in miniature, its files numbered in order: file -> true class."""
    if name == "objectnet":
        objectnet(root)
        return {"alarm_clock/0a1b.png": 409, "banana/0a1b.png": 954}
    files = {
        "imagenet": {
            "n01440764/ILSVRC2012_val_00000293.JPEG": TENCH,
            "n01498041/ILSVRC2012_val_00000001.JPEG": STINGRAY,
        },
        "imagenet-v2": {"0/a.jpeg": 0, "2/b.jpeg": 2, "10/c.jpeg": 10},
        "imagenet-a": {"n01498041/0.000_goldfish _ tench_0.5.jpg": STINGRAY},
        "imagenet-r": {"n01443537/art_0.jpg": GOLDFISH},
        "imagenet-sketch": {"n01440764/sketch_0.JPEG": TENCH, "n01443537/sketch_3.JPEG": GOLDFISH},
        "si-location": {"ambulance/12.jpg": 407},
        "si-rotation": {"bell pepper/7.jpg": 945},
        "si-size": {"banana/3.jpg": 954},
    }[name]
    for number, file in enumerate(files):
        write(root / file, number)
    (root / "README.txt").write_text("not a class")
    return files


@pytest.mark.parametrize("protocol", ["standard", "paper"])
@pytest.mark.parametrize("name", SUITES)
def test_labels_of_every_set_in_both_protocols(name: str, protocol: str, tmp_path: Path) -> None:
    expected = tree(name, tmp_path)
    tests = open_suite(name, tmp_path, Told({}), protocol=protocol)
    assert {s.image.relative_to(tests.root).as_posix(): s.label for s in tests.samples} == expected
    restricted = name in ("imagenet-a", "imagenet-r") and protocol == "standard"
    assert (len(tests.among) if tests.among else 1000) == (200 if restricted else 1000)


@pytest.mark.parametrize("protocol", ["standard", "paper"])
@pytest.mark.parametrize("name", SUITES)
def test_accuracy_of_a_model_that_knows_the_answers(
    name: str, protocol: str, tmp_path: Path
) -> None:
    expected = tree(name, tmp_path)
    right = Told({number: [label] for number, label in enumerate(expected.values())})
    others = {STINGRAY: 11, GOLDFISH: 2}  # also among the 200 classes of ImageNet-A, ImageNet-R
    wrong = Told(
        {number: [others.get(label, label + 1)] for number, label in enumerate(expected.values())}
    )
    for model, accuracy in ((right, 100), (wrong, 0)):
        result = refocus.evaluate(model, open_suite(name, tmp_path, model, protocol=protocol))
        assert 100 * sum(p.right for p in result.predictions) / len(expected) == accuracy


@pytest.mark.parametrize(("protocol", "right"), [("standard", True), ("paper", False)])
@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_a_and_r_are_answered_among_their_classes_or_among_all(
    name: str, protocol: str, right: bool, tmp_path: Path
) -> None:
    (label,) = tree(name, tmp_path).values()
    outsider = {"imagenet-a": TENCH, "imagenet-r": 0}[name]
    model = Told({0: [outsider, label]})  # prefers a class that the set does not have
    (answer,) = refocus.evaluate(
        model, open_suite(name, tmp_path, model, protocol=protocol)
    ).predictions
    assert answer.right == right
    assert answer.right5
    assert (outsider in answer.top5) != right


@pytest.mark.parametrize(("protocol", "right"), [("standard", True), ("paper", False)])
def test_objectnet_counts_any_mapped_class_or_the_first(
    protocol: str, right: bool, tmp_path: Path
) -> None:
    objectnet(tmp_path)
    model = Told(
        {0: [530], 1: [954]}
    )  # a digital clock: the second of the alarm clock's two classes
    answers = refocus.evaluate(
        model, open_suite("objectnet", tmp_path, model, protocol=protocol)
    ).predictions
    assert [p.right for p in answers] == [right, True]


@pytest.mark.parametrize(("protocol", "border"), [("standard", False), ("paper", True)])
def test_objectnet_border_is_cut_in_standard_alone(
    protocol: str, border: bool, tmp_path: Path
) -> None:
    objectnet(tmp_path)
    tests = open_suite("objectnet", tmp_path, Told({}), protocol=protocol)
    picture = np.asarray(tests.read(tests.samples[0]))
    assert picture.shape[0] == (48 if border else 44)
    assert bool((picture[..., 0] == 255).any()) == border


def test_classes_tuned_on_are_told_apart_where_folders_are_wordnet_ids(tmp_path: Path) -> None:
    tree("imagenet", tmp_path / "val")
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "selection.json").write_text(json.dumps({"train": [{"label": TENCH}]}))
    trained = trained_classes(str(tmp_path / "run" / "model"))
    model = Told({0: [TENCH], 1: [TENCH]})
    result = refocus.evaluate(model, open_suite("imagenet", tmp_path / "val", model))
    rows = classify.summary(model, result, (model, result), trained=trained).trained_changes
    assert {row.name: row.model for row in rows} == {"tuned on": 100, "never tuned on": 0}
    assert trained_classes("vit_small_patch16_224") == frozenset()


def test_a_real_sample_of_the_validation_set_has_its_layout(shared: Path) -> None:
    tests = open_suite("imagenet", shared / "data" / "imagenet_sample", Told({}))
    assert len(tests.samples) == 100
    assert len({s.label for s in tests.samples}) == 100
    assert all(tests.transform(tests.read(s)).shape == (3, 32, 32) for s in tests.samples[:3])


@pytest.mark.parametrize(
    ("name", "folder", "message"),
    [
        ("imagenet", "crane", "not a class of this set"),  # a bird or a machine
        ("imagenet-v2", "1000", "not a class of this set"),
        ("si-size", "dog", "not a class of this set"),
        (
            "imagenet-a",
            "n01440764",
            "not a class of this set",
        ),  # a class of ImageNet, not of its 200
    ],
)
def test_a_folder_that_is_not_of_the_set_is_named(
    name: str, folder: str, message: str, tmp_path: Path
) -> None:
    write(tmp_path / folder / "a.png")
    with pytest.raises(refocus.InputError, match=f"{folder}.*{message}"):
        open_suite(name, tmp_path, Told({}))


@pytest.mark.parametrize(
    ("name", "folder", "index"),
    [
        ("imagenet", "tench", 0),
        ("imagenet-sketch", "Great_White_Shark", 2),
        ("imagenet-v2", "0007", 7),
        ("imagenet-v2", "007", 7),
        ("imagenet-v2", "n01440764", 0),
        ("imagenet-a", "n01498041", 6),
    ],
)
def test_folders_of_imagenets_sets_may_follow_another_convention(
    name: str, folder: str, index: int, tmp_path: Path
) -> None:
    write(tmp_path / folder / "a.png")
    assert [s.label for s in open_suite(name, tmp_path, Told({})).samples] == [index]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("val.txt", "b.JPEG 7\na.JPEG 3\n"),
        ("LOC_val_solution.csv", "ImageId,PredictionString\na,n01491361 1 2 3 4\nb,n01514668 0 0"),
        ("LOC_val_solution.csv", "ImageId;PredictionString\na;n01491361 1 2\nb;n01514668 0 0"),
        ("imagenet_2012_validation_synset_labels.txt", "n01491361\nn01514668\n"),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_flat_validation_images_take_their_labels_from_a_file(
    file: str, content: str, beside: bool, tmp_path: Path
) -> None:
    for name in ("a.JPEG", "b.JPEG"):
        write(tmp_path / "val" / name)
    (tmp_path / ("val" if beside else ".") / file).write_text(content)
    samples = open_suite("imagenet", tmp_path / "val", Told({})).samples
    assert {s.image.name: s.label for s in samples} == {"a.JPEG": 3, "b.JPEG": 7}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("readme.txt", "", "no file gives their labels"),
        ("val.txt", "a.JPEG 3\n", r"gives no label for b\.JPEG"),
        ("val.txt", "a.JPEG 3\nb.JPEG 1000\n", "neither one of ImageNet's"),
        ("val.txt", "490\n361\n", "which numbering they follow"),
        ("val.txt", "", "0 labels for 2 images"),
        ("val.txt", "a.JPEG 3\nb.JPEG\n", r"its line 'b\.JPEG' has no label; must be NAME LABEL"),
        ("LOC_val_solution.csv", "ImageId,Label\na,n01491361\n", "one column predictionstring"),
        (
            "LOC_val_solution.csv",
            f"{HEAD}a,n01491361\nb,\n",
            r"^\S+solution.csv, line 3: has no value",
        ),
        (
            "LOC_val_solution.csv",
            f"{HEAD}a,n01491361\nb\n",
            r"^\S+solution.csv, line 3: has no value",
        ),
        ("imagenet_2012_validation_synset_labels.txt", "n01491361\n", "1 labels for 2 images"),
    ],
)
def test_a_file_of_labels_that_cannot_be_right_is_refused(
    file: str, content: str, message: str, tmp_path: Path
) -> None:
    for name in ("a.JPEG", "b.JPEG"):
        write(tmp_path / name)
    (tmp_path / file).write_text(content)
    with pytest.raises(refocus.InputError, match=message):
        open_suite("imagenet", tmp_path, Told({}))


def test_an_empty_folder_is_no_flat_set(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("")
    with pytest.raises(refocus.InputError, match="suites"):
        open_suite("imagenet", tmp_path, Told({}))


def test_lines_without_names_follow_numbers_with_leading_zeros_alone(tmp_path: Path) -> None:
    labels = ImageNetInfo().label_names()[:10]
    (tmp_path / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(labels))
    zeros, plain = tmp_path / "zeros", tmp_path / "plain"
    for number in range(10):
        write(zeros / f"ILSVRC2012_val_{number + 1:08}.JPEG")
        write(plain / f"{number + 1}.JPEG")
    samples = open_suite("imagenet", zeros, Told({})).samples
    assert [s.label for s in sorted(samples, key=lambda s: s.image)] == list(range(10))
    with pytest.raises(refocus.InputError, match=r"whether 2\.JPEG or 10\.JPEG comes first"):
        open_suite("imagenet", plain, Told({}))


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_flat_images_of_other_classes_than_the_set_has_are_refused(
    protocol: str, tmp_path: Path
) -> None:
    for name in ("a.png", "b.png"):
        write(tmp_path / name)
    (tmp_path / "val.txt").write_text(f"a.png {STINGRAY}\nb.png {TENCH}\n")
    with pytest.raises(refocus.InputError, match=r"1 of its 2 images.*b\.png \(label 0\)"):
        open_suite("imagenet-a", tmp_path, Told({}), protocol=protocol)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("imagenet_a", "imagenet-a"),
        ("ImageNet-A", "imagenet-a"),
        ("imagenetv2", "imagenet-v2"),
        ("SI Size", "si-size"),
        ("cue_conflict", "cue-conflict"),
        ("ImageNet_Segmentation", "imagenet-segmentation"),
    ],
)
def test_a_name_that_is_nearly_a_known_sets_is_refused(
    name: str, meant: str, tmp_path: Path
) -> None:
    for asked in (lambda: Plan({name: tmp_path}), lambda: open_suite(name, tmp_path, Told({}))):
        with pytest.raises(refocus.InputError, match=f"{name}=.* is spelled {meant}"):
            asked()


@pytest.mark.parametrize("name", ["imagenet", "imagenet-r", "imagenet-v2"])
def test_labels_are_the_outputs_of_a_model_that_names_them_in_another_order(
    name: str, tmp_path: Path
) -> None:
    model = Told({})
    model.pretrained_cfg["label_names"] = ImageNetInfo().label_names()[::-1]
    write(tmp_path / "n01443537" / "a.png")  # goldfish, 1
    tests = open_suite(name, tmp_path, model)
    assert [s.label for s in tests.samples] == [998]
    assert tests.among is None or 998 in tests.among
    model.pretrained_cfg["label_names"] = [f"product {i}" for i in range(1000)]
    with pytest.raises(refocus.InputError, match="such as product 0, product 1"):
        open_suite(name, tmp_path, model)


def test_objectnet_without_or_with_broken_mappings(tmp_path: Path) -> None:
    objectnet(tmp_path)
    (tmp_path / "mappings" / "objectnet_to_imagenet_1k.json").write_text('{"Banana": "banane"}')
    with pytest.raises(refocus.InputError, match=r"do not fit each other.*banane"):
        open_suite("objectnet", tmp_path, Told({}))
    (tmp_path / "mappings" / "imagenet_to_label_2012_v2").unlink()
    with pytest.raises(refocus.InputError, match="imagenet_to_label_2012_v2: cannot be read"):
        open_suite("objectnet", tmp_path, Told({}))


def test_a_model_of_other_classes_and_an_unknown_protocol(
    tiny: Callable[..., nn.Module], tmp_path: Path
) -> None:
    with pytest.raises(refocus.InputError, match="4 classes, this set needs ImageNet's 1000"):
        open_suite("imagenet-r", tmp_path, tiny())
    with pytest.raises(refocus.InputError, match="choose one of standard, paper"):
        open_suite("imagenet", tmp_path, Told({}), protocol="mine")
