"""How far a mask can be trusted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from refocus import InputError
from refocus.masks import trust
from refocus.masks.trust import trusted
from refocus.records import Sample


def test_tune_leaves_out_doubtful_masks_and_says_how_many(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [("cat/a", 0.9), ("cat/b", 0.3), ("dog/a", 0.5)]
    rows = [{"mask": f"{n}.png", "score": s, "digest": "0"} for n, s in names]
    (tmp_path / "masks.json").write_text(json.dumps({"masks": rows}))
    samples = [Sample(Path(f"/i/{n}.jpg"), 0, tmp_path / f"{n}.png") for n, _ in names] + [
        Sample(Path("/i/dog/none.jpg"), 1, None)
    ]
    with caplog.at_level("INFO", logger="refocus"):
        kept = trusted(samples, tmp_path, 0.5)
    assert [s.image.stem for s in kept] == ["a", "a"]
    assert "2 of 4 images left out" in caplog.text
    with pytest.raises(InputError, match=r"mask_score 0\.95: no mask"):
        trusted(samples, tmp_path, 0.95)
    assert trusted(samples, tmp_path / "elsewhere", 0.5) == samples


@pytest.mark.parametrize(
    ("bare", "said"),
    [
        ([], ""),
        (["a/0"], "1 of 14 images left out: no mask"),
        (["a/0", "b/0", "b/1"], "3 of 14 images left out: no mask (none is left of class 'b')"),
        (
            [f"{name}/{i}" for name in "abcdef" for i in range(2)],
            "12 of 14 images left out: no mask "
            "(none is left of 6 classes: 'a', 'b', 'c', 'd', 'e', ...)",
        ),
    ],
)
def test_images_without_a_mask_are_counted_and_classes_without_any_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bare: list[str], said: str
) -> None:
    names = [f"{name}/{i}" for name in "abcdefg" for i in range(2)]
    samples = [
        Sample(Path(f"/i/{n}.png"), 0, None if n in bare else tmp_path / f"{n}.png") for n in names
    ]
    with caplog.at_level("INFO", logger="refocus"):
        kept = trust.masked(samples, tmp_path, 0.5)
    assert len(kept) == 14 - len(bare)
    assert [record.getMessage() for record in caplog.records] == [said] * bool(said)


def test_scores_of_a_folder(tmp_path: Path) -> None:
    assert trust.scores(tmp_path) == {}
    (tmp_path / "masks.json").write_text(
        json.dumps({"masks": [{"mask": "cat/a.b.png", "score": 0.25, "digest": "0"}]})
    )
    assert trust.scores(tmp_path) == {"cat/a.b": 0.25}
    (tmp_path / "masks.json").write_text('{"masks": [{"mask": "cat/a.png"}]}')
    with pytest.raises(InputError, match=r"masks\.json: not a record"):
        trust.scores(tmp_path)


def test_small_masks_are_those_under_520_pixels_of_a_side_of_224(tmp_path: Path) -> None:
    def row(name: str, share: float, agreement: float | None) -> dict[str, object]:
        return {"mask": f"{name}.png", "area": share, "agreement": agreement}

    least = 520 / 224**2  # of a square image; of one twice as long half of it
    areas = {"a/under": 0.99 * least, "a/over": 1.01 * least, "a/long": 0.51 * least}
    rows = [row(name, share, 0.5) for name, share in areas.items()]
    rows.append(row("a/annotated", 0.1 * least, None))
    (tmp_path / "masks.json").write_text(json.dumps({"masks": rows}))
    (tmp_path / "a").mkdir()
    names = [*areas, "a/annotated"]
    for name in names:
        size = (80, 40) if name == "a/long" else (40, 40)
        Image.new("L", size).save(tmp_path / f"{name}.png")
    samples = [
        Sample(Path(f"/i/{n}.jpg"), 0, tmp_path / f"{n}.png") for n in (*areas, "a/annotated")
    ]
    kept = trust.large_enough(samples, tmp_path)
    assert [s.image.stem for s in kept] == ["over", "long", "annotated"]
    assert trust.large_enough(samples, tmp_path / "elsewhere") == samples
    with pytest.raises(InputError, match="all masks are under 520 pixels"):
        trust.large_enough(samples[:1], tmp_path)
