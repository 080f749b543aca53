"""The words that name a model, and what it is known by."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from refocus import fingerprints, references
from refocus.errors import InputError


@pytest.mark.parametrize(
    ("given", "plain", "said"),
    [
        ("m?order=natural", "m", {"order": "natural"}),
        ("/a b/m?names=/x/y.txt", "/a b/m", {"names": "/x/y.txt"}),
        ("py:a:b@/m?order=string", "py:a:b@/m", {"order": "string"}),
        ("what?.bin", "what?.bin", {}),
        ("m?size=3", "m?size=3", {}),
    ],
)
def test_what_follows_a_models_reference(given: str, plain: str, said: dict[str, str]) -> None:
    assert references.split(given) == (plain, said)


def test_the_home_of_nobody_is_a_folder_that_is_not_there() -> None:
    place = "~nobody-is-called-so/m"
    assert references.folder_of(f"hf:{place}") == Path(place)
    assert references.resolved(place) == place
    assert fingerprints.of_model(place) == [place]


def test_names_and_an_order_are_given_one_at_a_time() -> None:
    with pytest.raises(InputError, match="give one of them"):
        references.with_names("m", names="n.txt", order="natural")


def test_a_model_is_known_by_the_content_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_text("one")
    first = fingerprints.of_model(str(folder))
    for file in folder.iterdir():
        os.utime(file, ns=(1, 1))  # touched, copied
    assert fingerprints.of_model(str(folder)) == first
    (folder / "model.safetensors").write_text("two")
    assert fingerprints.of_model(str(folder)) != first
    (tmp_path / "names.txt").write_text("a\nb")
    named = references.with_names(str(folder), names=tmp_path / "names.txt")
    second = fingerprints.of_model(named)
    (tmp_path / "names.txt").write_text("b\na")
    assert fingerprints.of_model(named) != second
    assert fingerprints.of_model("vit_tiny_patch16_224") == ["vit_tiny_patch16_224"]
