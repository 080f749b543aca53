"""Records: to JSON and back, and what is not one is refused by name and place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from refocus import InputError
from refocus.files import read_json
from refocus.records import (
    Prediction,
    appending,
    from_json,
    read_lines,
    read_records,
    to_json,
    write_line,
)
from refocus.results import Change, Compared, Estimate

WHOLE = Compared(
    Estimate(81.0, (70.5, 90.0), 40),
    Estimate(None, None, 0),
    Change(-1.5, (-4.0, 1.0), 40, 0.4, 2, 3),
)


def test_a_record_comes_back_from_json_as_it_was() -> None:
    assert from_json(json.loads(json.dumps(to_json(WHOLE))), Compared, "x") == WHOLE


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": {"value": "81", "interval": None, "n": 4}}, r"\$\.model\.value"),
        ({"model": {"value": 81, "interval": [1], "n": 4}}, r"\$\.model\.interval"),
        ({"against": None}, "model"),
        ([], "object"),
        (None, "object"),
    ],
)
def test_another_shape_is_refused_by_file_and_place(content: object, said: str) -> None:
    with pytest.raises(InputError, match=rf"a\.json: .*{said}"):
        from_json(content, Compared, "a.json")


@pytest.mark.parametrize(
    ("interval", "p", "decided"),
    [
        ((0.5, 2.0), 0.01, 1),
        ((-2.0, -0.5), None, -1),
        ((0.5, 2.0), 0.125, 0),  # the bootstrap is too sure with few changed images
        ((-0.5, 2.0), 0.01, 0),
        (None, 0.01, 0),
    ],
)
def test_a_change_is_decided_where_interval_and_test_agree(
    interval: tuple[float, float] | None, p: float | None, decided: int
) -> None:
    assert Change(1.0, interval, 9, p).decided == decided


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"\x00\x00\x00", "line 2"),
        (b'{"image": "a", "half', "line 2"),
        (b"5", "line 2"),
        (b"[1]", "line 2"),
        (b'{"a": NaN}', "line 2"),
        (b'{"a": "\xe4"}', "line 2"),
        (b"[" * 10_000, "line 2"),
    ],
)
def test_a_line_that_is_no_record_is_refused_by_number(
    line: bytes, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(InputError, match=rf"a\.jsonl, {said}: not what refocus writes"):
        list(read_lines(file))


def test_blank_lines_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"a": 1}\n  \n\n')
    assert list(read_lines(tmp_path / "a.jsonl")) == [{"a": 1}]
    assert list(read_lines(tmp_path / "b.jsonl")) == []


def test_a_pipe_is_no_record(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        list(read_lines(tmp_path / "pipe"))
    with pytest.raises(InputError, match="not a regular file"):
        read_json(tmp_path / "pipe")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"a": NaN}', b"[" * 10_000, b"9" * 10_000, b'{"a": "\xe4"}', b"\xff\xfe{"],
)
def test_what_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: not a readable JSON file"):
        read_json(tmp_path / "a.json")


def test_what_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json: is not there; run the command that writes it"):
        read_json(tmp_path / "a.json")


def test_json_has_a_limit_and_may_begin_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1, 2]")
    assert read_json(tmp_path / "a.json") == [1, 2]
    with pytest.raises(InputError, match="must be at most"):
        read_json(tmp_path / "a.json", most=4)


LINE = '{"image": "a/0.png", "label": 0, "top5": [0], "confidence": 0.5}'


def test_of_two_lines_of_one_image_the_later_counts(tmp_path: Path) -> None:
    file = tmp_path / "standard.model.jsonl"
    other = LINE.replace("0.png", "1.png")
    file.write_text("\n".join([LINE, other, "", LINE.replace("0.5", "0.75")]) + "\n")
    found = read_records(file, Prediction)
    assert [(p.image, p.confidence) for p in found.rows] == [("a/0.png", 0.75), ("a/1.png", 0.5)]


def test_lines_without_an_image_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    file.write_text('{"epoch": 0}\n{"epoch": 1}\n')
    assert read_lines(file) == [{"epoch": 0}, {"epoch": 1}]
    assert read_lines(tmp_path / "nothing.jsonl") == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"image": "a"}', "missing required field `label`"),
        (LINE.replace("[0]", '"0"').encode(), r"\$\.top5"),
        (b'{"image": 3, "unreadable": "x"}', r"\$\.image"),
        (b'{"image": ["a"]}', r"image"),
    ],
)
def test_a_line_of_another_shape_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "standard.model.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_records(file, Prediction)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_records_that_are_missing_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing; evaluate again"):
        read_records(tmp_path / "standard.model.jsonl", Prediction)


def test_a_line_that_was_changed_by_hand_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    with appending(file) as lines:
        for image, right in (("a", 1), ("b", 0)):
            write_line(lines, {"image": image, "right": right})
    assert read_lines(file) == [{"image": "a", "right": 1}, {"image": "b", "right": 0}]
    file.write_text(file.read_text().replace('"right": 0', '"right": 1'))
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: .*it was changed since"):
        read_lines(file)
    file.write_text('{"image": "a", "right": 1}\n')  # of an earlier version
    assert read_lines(file) == [{"image": "a", "right": 1}]


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"a\.jsonl"), appending(tmp_path / "a.jsonl"):
        raise OSError(28, "No space left on device")
