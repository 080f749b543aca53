"""Class names for a zero-shot classifier: where they come from, and how they are spoken."""

from __future__ import annotations

from pathlib import Path

import pytest

from refocus import InputError
from refocus.vit.from_names import (
    read_names,
    read_sentences,
    spoken,
    spoken_apart,
    write_zero_shot,
)


def test_names_come_from_a_file_or_folders_and_are_spoken(tmp_path: Path) -> None:
    for name in ("n02123045", "sea_star"):
        (tmp_path / "images" / name).mkdir(parents=True)
    listed = tmp_path / "names.txt"
    listed.write_text("ant\nbee\n\n")
    assert read_names(tmp_path / "images") == ["n02123045", "sea_star"]
    assert read_names(str(listed)) == ["ant", "bee"]
    assert read_names("ant, bee") == ["ant", "bee"]
    assert [spoken(name) for name in ("n02123045", "sea_star")] == ["tabby", "sea star"]


def test_classes_that_share_a_word_are_told_apart_or_refused() -> None:
    bird, machine, ant = spoken_apart(["n02012849", "n03126707", "ant"])
    assert bird.startswith("crane, large long-necked wading bird")
    assert machine == "crane, lifts and moves heavy objects"
    assert ant == "ant"
    for names in (["polar_bear", "polar bear"], ["Cat", "dog", "cat"]):
        with pytest.raises(InputError, match=r"are both 'polar bear'|Cat and cat are both 'cat'"):
            spoken_apart(names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("ant", r"^names ant: 1 names; at least two, each once"),
        (["ant", "ant"], r"^names: 2 names; at least two, each once"),
        ("a," * 3000, r"^names a,a.*: 3000 names; at least two, each once"),
    ],
)
def test_names_that_make_no_classifier_are_refused(
    names: str | list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        write_zero_shot("hf:nowhere", names, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a photo\n", r"^templates: 'a photo' must hold \{\} once"),
        (b"a {} and {}\n", r"must hold \{\} once"),
        (b"\n \n", r"^templates .*: is empty$"),
        (b"\xff\xfe{}", r"^templates .*: cannot be read as text"),
    ],
)
def test_sentences_without_a_place_for_the_class_are_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "sentences.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_sentences(file)
    assert len(read_sentences(None)) == 80


def test_a_folder_that_exists_is_kept(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^out .*: exists and is not overwritten"):
        write_zero_shot("hf:nowhere", "a,b", tmp_path)
