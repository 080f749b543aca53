"""Teachers: any supported model, and networks of torchvision from a file."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torchvision

from refocus.errors import InputError
from refocus.relevance.answers import last_linear_input, logits_of, second_answer
from refocus.vit import loading
from refocus.vit.classes import name_outputs
from refocus.vit.loading import preprocessing
from refocus.vit.teachers import load_teacher
from tests.makers import Build
from tests.zoo import build, images_for


def test_a_supported_model_answers_to_plain_pixels(tiny: Build, tmp_path: Path) -> None:
    model, student = tiny(), tiny()
    loading.save(model, tmp_path / "m")
    teacher = load_teacher(str(tmp_path / "m"), student)
    pixels, config = torch.rand(2, 3, 32, 32), preprocessing(model)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(teacher(pixels), model((pixels - mean) / std))
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert teacher(torch.rand(1, 3, 40, 48)).shape == (1, 4)


def test_a_teacher_without_names_is_taken_by_its_numbers_and_that_is_said_once(
    tiny: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="refocus")
    torch.save(torchvision.models.squeezenet1_1(num_classes=4).state_dict(), tmp_path / "w.pth")
    for pretrained in (False, True):  # the check before a run, and the run
        ref = f"torchvision:squeezenet1_1@{tmp_path / 'w.pth'}"
        load_teacher(ref, tiny(), pretrained=pretrained)
    assert caplog.text.count("are taken for the model's by their numbers") == 1


def test_a_network_of_torchvision_from_a_file(tiny: Build, tmp_path: Path) -> None:
    network = torchvision.models.squeezenet1_1(num_classes=4).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    ref = f"torchvision:squeezenet1_1@{tmp_path / 'w.pth'}"
    teacher = load_teacher(ref, tiny())
    pixels = torch.rand(1, 3, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(teacher(pixels), expected)


def test_teachers_that_cannot_teach_are_refused(tiny: Build, tmp_path: Path) -> None:
    student = tiny()
    other = tiny(num_classes=3)
    loading.save(other, tmp_path / "three")
    torch.save({"x": torch.zeros(1)}, tmp_path / "w.pth")
    for ref, message in (
        (str(tmp_path / "three"), "has 3 classes, the model 4"),
        (str(tmp_path / "nothing" / "x"), "teacher .*no such folder"),
        ("torchvision:nonesuch", "torchvision has no classifier 'nonesuch'"),
        ("torchvision:squeezenet1_1.V9", "no such weights; choose one of IMAGENET1K_V1"),
        (f"torchvision:squeezenet1_1@{tmp_path / 'no.pth'}", "no such file"),
        (f"torchvision:squeezenet1_1@{tmp_path / 'w.pth'}", "not weights of this network"),
    ):
        with pytest.raises(InputError, match=message):
            load_teacher(ref, student)


def test_a_thousand_classes_are_not_always_imagenets(tiny: Build) -> None:
    ref, student = "torchvision:squeezenet1_1", tiny(num_classes=1000)
    assert load_teacher(ref, student, pretrained=False).size == (224, 224)
    name_outputs(student, [f"kind {i}" for i in range(1000)], "names")
    with pytest.raises(InputError, match=r"answers with ImageNet's classes .* other outputs"):
        load_teacher(ref, student, pretrained=False)


def test_a_second_token_answers_by_its_own_head() -> None:
    for family in ("distilled DeiT", "distilled DeiT (transformers)"):
        model = build(family, "")
        images = images_for(model)
        with torch.no_grad():
            second = second_answer(model, images)
            _, features = last_linear_input(model, images)
            heads = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
            heads = [m for m in heads if m.out_features == 4]
            first = heads[-2](features.chunk(2, dim=-1)[0])
            torch.testing.assert_close((first + second) / 2, logits_of(model, images))
    plain = build("ViT", "class token")
    with pytest.raises(InputError, match="has no second token"):
        second_answer(plain, images_for(plain))


@pytest.mark.parametrize(
    ("family", "variant"),
    [
        ("ViT", "class token"),
        ("distilled DeiT", ""),
        ("distilled DeiT (transformers)", ""),
        ("ViT (torchvision)", ""),
    ],
)
def test_features_and_the_second_answer_are_those_of_a_head_that_peft_wraps(
    family: str, variant: str
) -> None:
    peft = pytest.importorskip("peft")
    model = build(family, variant)
    images = images_for(model)
    layers = [name for name, m in model.named_modules() if type(m) is torch.nn.Linear]
    config = peft.LoraConfig(r=2, target_modules=layers)
    adapted = peft.inject_adapter_in_model(config, copy.deepcopy(model)).eval()
    with torch.no_grad():
        expected, found = (last_linear_input(each, images) for each in (model, adapted))
        torch.testing.assert_close(found, expected)
        if not family.startswith("distilled"):
            return
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_()
        second = second_answer(adapted, images)
        _, features = last_linear_input(adapted, images)
        heads = [m for m in adapted.modules() if getattr(m, "out_features", 0) == 4]
        first = next(m for m in heads if hasattr(m, "lora_A"))(features.chunk(2, dim=-1)[0])
        torch.testing.assert_close((first + second) / 2, logits_of(adapted, images))
