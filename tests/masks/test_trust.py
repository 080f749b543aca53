"""How far a mask can be trusted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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


def test_scores_of_a_folder(tmp_path: Path) -> None:
    assert trust.scores(tmp_path) == {}
    (tmp_path / "masks.json").write_text(
        json.dumps({"masks": [{"mask": "cat/a.b.png", "score": 0.25, "digest": "0"}]})
    )
    assert trust.scores(tmp_path) == {"cat/a.b": 0.25}
    (tmp_path / "masks.json").write_text('{"masks": [{"mask": "cat/a.png"}]}')
    with pytest.raises(InputError, match=r"masks\.json: not a record"):
        trust.scores(tmp_path)
