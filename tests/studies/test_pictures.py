"""The figures that show images, chosen by rule; the figures that show every class."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from refocus.cli import main
from refocus.data.images import read_image
from refocus.data.transforms import paper_image
from refocus.evaluation.metrics import group_differences
from refocus.figures.html import tile_uri
from refocus.figures.pictures import to_picture
from refocus.records import Prediction, appending, to_json, write_line
from refocus.studies import datasets, figures, pictures, registry
from refocus.studies.jobs import Job
from refocus.studies.order import Order
from refocus.studies.words import plural, signed
from refocus.vit.loading import load
from tests.makers import NAMES, answer
from tests.studies.makers import RUN, options


def written(place: Path, out: Path, name: str, broken: dict[str, int]) -> Order:
    """A finished study whose original is right on all 3 images of a class.

    broken: class -> how many of them the tuned model gets wrong, the first ones in the listing.
    """
    ground = datasets.Ground(
        {"m": str(place / "model")},
        place / "images" / "train",
        {"annotated": place / "masks" / "train"},
        {"mixed-rand": place / "images" / "test"},
        own=True,
    )
    order = Order(name, registry.study(name), ground, out, {})
    for variant in (registry.ORIGINAL, registry.PUBLISHED):
        lines = [
            answer(
                f"{c}/{i}.png",
                label,
                label if variant is registry.ORIGINAL or i >= broken.get(c, 0) else (label + 1) % 4,
            )
            for label, c in enumerate(NAMES)
            for i in range(3)
        ]
        file = Job("m", variant).records(out, "mixed-rand")
        file.parent.mkdir(parents=True)
        with appending(file) as sink:
            for line in lines:
                write_line(sink, to_json(line))
    run = Job("m", registry.PUBLISHED).folder(out)
    run.mkdir(parents=True)
    (run / "model").symlink_to(place / "model")
    return order


def test_figure15_shows_the_first_spoiled_images_of_the_two_worst_classes(
    place: Path, tmp_path: Path
) -> None:
    order = written(place, tmp_path, "figure15", {"ant": 1, "bee": 3, "dog": 2})
    groups = pictures.worst(order)
    assert [(g.title, g.total) for g in groups] == [
        ("m, mixed-rand: bee, spoiled", 3),
        ("m, mixed-rand: dog, spoiled", 2),
    ]
    shown = [[card.name for card in group.cards] for group in groups]
    assert shown == [["bee/0.png", "bee/1.png", "bee/2.png"], ["dog/0.png", "dog/1.png"]]
    assert [tile.title for tile in groups[0].cards[0].tiles] == ["image", "original", "tuned"]
    for group in groups:  # as its title says, whatever the models answer without the test set
        for card in group.cards:
            assert [tile.right for tile in card.tiles] == [None, True, False]
            assert card.tiles[1].caption == f"{card.label} (50%)"


def test_pictures_show_what_the_test_set_showed(place: Path, tmp_path: Path) -> None:
    order = written(place, tmp_path, "figure15", {"bee": 3})
    order = replace(order, ground=replace(order.ground, recipe={"protocol": "paper"}))
    card = pictures.worst(order)[0].cards[0]
    file = order.ground.suites["mixed-rand"] / card.name
    pixels = paper_image(load(place / "model"))(read_image(file))  # cut off at the border
    assert card.tiles[0].picture == tile_uri(to_picture(pixels, (0.5,) * 3, (0.5,) * 3))


def test_figure6_goes_on_where_figure3_ends(place: Path, tmp_path: Path) -> None:
    """Both show corrected answers alone, no image in both."""
    seen = []
    for name in ("figure3", "figure6"):
        order = written(place, tmp_path / name, name, dict.fromkeys(NAMES, 3))
        for variant, other in ((registry.ORIGINAL, "before"), (registry.PUBLISHED, "after")):
            file = Job("m", variant).records(order.out, "mixed-rand")
            file.rename(file.with_name(other))
        folders = [order.out / "records" / "m" / v for v in ("original", "relevance")]
        (folders[0] / "before").rename(folders[1] / "mixed-rand.jsonl")  # so all are corrected
        (folders[1] / "after").rename(folders[0] / "mixed-rand.jsonl")
        (group,) = pictures.galleries(order)
        assert group.title == "m, mixed-rand: corrected"
        seen.append({card.name for card in group.cards})
    assert [len(names) for names in seen] == [4, 4]
    assert not seen[0] & seen[1]


@pytest.mark.parametrize(
    ("name", "suites"),
    [
        ("figure3", ("imagenet-a", "objectnet", "si-rotation")),
        ("figure6", ("imagenet-a", "objectnet", "si-rotation")),
        ("figure2", ("imagenet",)),
    ],
)
def test_examples_are_of_the_papers_sets_and_models(name: str, suites: tuple[str, ...]) -> None:
    row = registry.study(name)
    assert row.suites == suites
    assert row.models == ("ViT-B", "ViT-L", "AR-B", "AR-L", "DeiT-B")


@pytest.mark.slow
def test_a_figure_of_every_class_has_those_that_did_not_move(place: Path) -> None:
    """Paper, Figures 10, 11, 13, 14: "there are some classes with zero effect"."""
    after = [Prediction(f"{i}", i % 120, (i % 120 if i else 5, 9), 0.9, 0.1) for i in range(240)]
    before = [Prediction(f"{i}", i % 120, (i % 120, 9), 0.9, 0.1) for i in range(240)]
    one = [Prediction("alone", 120, (120, 9), 0.9, 0.1)]  # a class of one image: no interval
    rows = group_differences([*after, *one], [*before, *one], lambda p: f"class{p.label}")
    assert drawn(rows, registry.study("figure10").ends) == {f"class{i}" for i in range(121)}
    assert len(drawn(rows, registry.study("figure8").ends)) == 100


def drawn(rows: tuple[figures.GroupChange, ...], ends: int) -> set[str]:
    (chart,) = figures.class_charts({"m: s": rows}, ends)
    svg = base64.b64decode(chart.picture.wide.partition(",")[2]).decode()
    return {part.partition(" -->")[0] for part in svg.split("<!-- ") if part.startswith("class")}


def test_a_figure_is_titled_by_what_it_was_given(place: Path) -> None:
    assert RUN.invoke(main.app, ["study", "figure10", *options(place)]).exit_code == 0
    content = json.loads((place / "out" / "figure10.json").read_text())
    assert content["about"] == "change of every class: mixed-rand"
    text = (place / "out" / "figure10.md").read_text()
    assert "imagenet-a" not in text
    listed = RUN.invoke(main.app, ["study", "list"]).stdout
    assert "change of every class: imagenet-a" in listed


def test_numbers_are_written_as_people_write_them() -> None:
    assert [signed(value) for value in (-0.04, 0.04, -0.06, 2.25)] == [
        "+0.0",
        "+0.0",
        "-0.1",
        "+2.2",
    ]
    assert [plural(n, "class", "classes") for n in (0, 1, 2)] == [
        "0 classes",
        "1 class",
        "2 classes",
    ]
