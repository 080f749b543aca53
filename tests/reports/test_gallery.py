"""Which images a page shows."""

from __future__ import annotations

from pathlib import Path

from refocus.evaluation.plan import Plan
from refocus.evaluation.prove import evaluate_suites
from refocus.reports.gallery import outcomes
from refocus.reports.report_pictures import shift_strips
from refocus.reports.told import Told
from refocus.vit import loading
from tests.makers import Build, answer, make_images


def test_gallery_groups_are_chosen_by_rule() -> None:
    before = [answer(str(i), 0, int(i < 6), 0.1 * (i % 4)) for i in range(12)]  # 0-5 wrong
    after = [answer(str(i), 0, int(i % 2), 0.9 - 0.05 * i) for i in range(12)]  # even right
    corrected, spoiled, right, wrong = outcomes(before, after, count=2)
    assert (corrected.total, spoiled.total, right.total, wrong.total) == (3, 3, 3, 3)
    assert corrected.shown == ["0", "4"]  # rises of 0.9, 0.7 and 0.6 for 0, 4 and 2
    assert spoiled.shown[0] == "11"
    assert right.shown == ["6"]
    assert wrong.shown == ["1"]


def test_a_model_without_names_says_those_of_the_folders_in_the_strips(
    tiny: Build, tmp_path: Path
) -> None:
    names = ["1", "10", "2"]  # as strings, so class 10 is output 1
    images, masks = make_images(tmp_path / "data", names, 2)
    loading.save(tiny(num_classes=3), tmp_path / "bare")
    refs = {"against": f"{tmp_path / 'bare'}?order=string", "model": str(tmp_path / "tuned")}
    loading.save(loading.load(tmp_path / "bare", names=names), Path(refs["model"]))
    plan = Plan({"own": str(images)}, {"own": str(masks)}, ("mixed-same",))
    found = evaluate_suites(refs["model"], plan, tmp_path / "proof", against=refs["against"])
    loaded = {"original": loading.load(refs["against"]), "tuned": loading.load(refs["model"])}
    (plain, _) = shift_strips(Told(tmp_path / "proof", found, None), loaded)
    assert [shot.truth for shot in plain.shots] == [n for n in names for _ in range(2)]
    for shot in plain.shots:  # both have the same weights
        assert shot.said[0].text.split(": ")[1] == shot.said[1].text.split(": ")[1]
