"""Map scores against literal versions: the published test, insertion and deletion."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

import refocus
from refocus.data.folders import scan
from refocus.evaluation import maps
from refocus.evaluation.settings import EvaluationSettings
from refocus.records import Sample
from refocus.reports.settings import AuditSettings
from tests.makers import Build, matlab_file


class Bright(nn.Module):
    """Class 1 gets the mean brightness of the right half as its logit.

    Relevance for it can be told in advance.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        score = images[..., images.shape[-1] // 2 :].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(score), 4 * score * self.weight], dim=1)


def test_insertion_and_deletion_tell_a_right_map_from_a_wrong_one() -> None:
    image = torch.rand(3, 32, 32) + 0.5
    right = torch.zeros(32, 32)
    right[:, 16:] = 1
    good = maps.insertion_deletion(Bright(), image, right, 1)
    bad = maps.insertion_deletion(Bright(), image, 1 - right, 1)
    assert good[1] < bad[1] - 0.1  # deleting what matters first loses the class sooner
    spots = torch.zeros(3, 32, 32)
    spots[:, 8::16, 24::16] = (
        9  # blurring spreads a spot over the middle line, showing it puts it back
    )
    spots[:, 8::16, 16] = 9
    inserted = [maps.insertion_deletion(Bright(), spots, m, 1)[0] for m in (right, 1 - right)]
    assert inserted[0] > inserted[1]


@pytest.mark.parametrize("settings", [EvaluationSettings, AuditSettings])
def test_help_says_how_many_forward_passes_an_image_takes(settings: type) -> None:
    asked, model = [], Bright()
    model.register_forward_pre_hook(lambda _module, args: asked.append(len(args[0])))
    maps.insertion_deletion(model, torch.rand(3, 12, 12), torch.rand(12, 12), 1)
    said = str(get_type_hints(settings, include_extras=True)["faithful"])
    assert f"{sum(asked)} forward passes each" in said


def test_deletion_against_a_literal_loop() -> None:
    torch.manual_seed(3)
    image, relevance, model = torch.randn(3, 12, 12), torch.rand(12, 12), Bright()
    order = sorted((-float(relevance[y, x]), y, x) for y in range(12) for x in range(12))
    deleted, inserted = [], []
    for step in range(maps._STEPS + 2):
        share = step / (maps._STEPS + 1)
        gone = image.clone()
        shown = torch.zeros(12, 12)
        for rank, (_, y, x) in enumerate(order):
            if rank / 144 < share - 1e-9:
                gone[:, y, x] = 0
                shown[y, x] = 1
        blurred = v2.functional.gaussian_blur(image, [11, 11], [5.0, 5.0])
        kept = torch.where(shown.bool(), image, blurred)
        deleted.append(float(model(gone[None]).softmax(1)[0, 1]))
        inserted.append(float(model(kept[None]).softmax(1)[0, 1]))
    found = maps.insertion_deletion(model, image, relevance, 1)
    for area, curve in zip(found, (inserted, deleted), strict=True):
        assert area == pytest.approx(
            (sum(curve) - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1), abs=1e-5
        )


def test_records_give_the_published_scores_with_intervals(
    tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    model = tiny()
    samples = scan(images, model, masks=masks)
    view = maps.MaskedView(model)
    records = tmp_path / "maps.jsonl"
    measured = maps.measure(model, samples, images, view, faithful=6, records=records)
    found = maps.scores(measured.rows)
    loaded = [view(s) for s in samples]
    explained = refocus.explain(model, torch.stack([x for x, _ in loaded]))
    truth = torch.stack([m for _, m in loaded])
    expected = asdict(refocus.segmentation_scores(explained.relevance, truth))
    assert {name: found[name].model.value for name in expected} == pytest.approx(expected, abs=1e-6)
    share = refocus.background_share(explained.patches, truth).mean().item()
    assert found["background_share"].model.value == pytest.approx(share, abs=1e-6)
    assert found["insertion"].model.n == found["deletion"].model.n == 6
    assert found["pointing"].model.n == 24
    for score in found.values():
        low, high = score.model.interval
        assert low <= score.model.value <= high
    assert maps.measure(model, samples, images, view, faithful=6, records=records) == measured


def test_an_object_out_of_the_crop_and_a_map_of_nothing_do_not_count(
    tiny: Build, image_folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    images, masks = image_folders
    model = tiny()
    samples = scan(images, model, masks=masks)
    view = maps.MaskedView(model)

    def cropped(sample: Sample) -> tuple[Tensor, Tensor]:
        pixels, mask = view(sample)
        return pixels, mask * (sample.image.stem != "0")

    found = maps.measure(model, samples, images, cropped, faithful=24).rows
    assert "4 of 24 images do not count in map scores" in caplog.text
    whole = maps.measure(model, samples, images, view).rows
    left = [row for row in whole if not row.image.endswith("/0.png")]
    for name, score in maps.scores(left).items():
        assert maps.scores(found)[name] == score
        assert maps.scores(found, whole)[name].change == maps.scores(left, left)[name].change
    assert maps.scores(found)["insertion"].model.n == 24  # asks nothing of the mask
    torch.nn.init.zeros_(model.head.weight)
    assert maps.scores(maps.measure(model, samples, images, view).rows) == {}


def test_scores_of_two_models_are_paired(tiny: Build, image_folders: tuple[Path, Path]) -> None:
    images, masks = image_folders
    first, second = tiny(), tiny()
    samples = scan(images, first, masks=masks)
    ours, theirs = (
        maps.measure(m, samples, images, maps.MaskedView(m), faithful=24).rows
        for m in (first, second)
    )
    found = maps.scores(ours, theirs[:-1])  # one image is missing there
    for name, score in found.items():
        alone = maps.scores(ours[:-1])[name].model.value
        before = maps.scores(theirs[:-1])[name].model.value
        assert score.model.n == score.change.n == 23
        assert score.against.value == pytest.approx(before)
        assert score.change.difference == pytest.approx(alone - before)
        low, high = score.change.interval
        assert low <= score.change.difference <= high
    same = maps.scores(ours, ours)
    assert same["miou"].change.difference == 0


def test_gtsegs_is_read_as_it_is_stored(tiny: Build, tmp_path: Path) -> None:
    file = matlab_file(tmp_path / "gtsegs_ijcv.mat")
    model = tiny()
    segments = maps.Gtsegs(file, model)
    (sample,) = segments.samples()
    pixels, shape = segments(sample)
    assert pixels.shape == (3, 32, 32)
    assert shape[8:24, 16:].eq(1).all()  # squeezed to 32 x 32
    assert shape.sum() == 16 * 16
    drawn = np.random.default_rng(0).random((50, 70)) > 0.5  # as the published test: of a picture
    squeezed = segments.shape(torch.from_numpy(drawn[None].astype(np.float32)))[0]
    picture = Image.fromarray(drawn.astype(np.uint8)).resize((32, 32), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(squeezed.numpy(), np.asarray(picture))
    model.pretrained_cfg.update(mean=(0.1, 0.1, 0.1), std=(0.2, 0.2, 0.2))
    paper, own = (maps.Gtsegs(file, model, name)(sample)[0] for name in ("paper", "standard"))
    torch.testing.assert_close(paper * 0.5 + 0.5, own * 0.2 + 0.1)  # one scale for all models
    rows = maps.measure(model, [sample], file.parent, segments).rows
    assert rows[0].image == "gtsegs_ijcv.mat/00000"
    assert 0 <= maps.scores(rows)["miou"].model.value <= 1
    other = tmp_path / "other.mat"
    other.write_bytes(b"no matlab")
    with pytest.raises(refocus.InputError, match="not gtsegs_ijcv"):
        maps.Gtsegs(other, model).samples()


@pytest.mark.parametrize(
    ("picture", "mask", "message"),
    [
        (np.zeros((40, 64), np.uint8), None, "a picture of the shape"),
        (np.zeros((4, 40, 64), np.uint8), None, "differ in size"),
        (None, np.zeros((64, 41), np.uint8), "differ in size"),
        (None, np.zeros((64, 40), "S3"), "a picture of .S3"),
        (None, np.zeros((0, 0)), "a picture of the shape .0, 0"),
    ],
)
def test_gtsegs_of_another_shape_is_said(
    tiny: Build,
    tmp_path: Path,
    picture: np.ndarray | None,
    mask: np.ndarray | None,
    message: str,
) -> None:
    file = matlab_file(tmp_path / "gtsegs_ijcv.mat", picture, mask)
    segments = maps.Gtsegs(file, tiny())
    (sample,) = segments.samples()
    with pytest.raises(refocus.InputError, match=message):
        segments(sample)


def test_gtsegs_without_as_many_masks_is_said(tiny: Build, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    for number, rows in enumerate(((1, 2), (0, 3), (1 << 40, 1 << 40))):
        file = tmp_path / f"{number}.mat"
        with h5py.File(file, "w") as store:
            for name, count in zip(("img", "gt"), rows, strict=True):
                store.create_dataset(f"value/{name}", (count, 1), "i8", maxshape=(None, 1))
        with pytest.raises(refocus.InputError, match="not gtsegs_ijcv"):
            maps.Gtsegs(file, tiny()).samples()
