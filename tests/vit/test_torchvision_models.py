"""Models of torchvision, by name."""

from __future__ import annotations

import refocus
from refocus.vit import torchvision_models
from refocus.vit.loading import preprocessing


def test_torchvision_by_name_carries_imagenets_names_and_its_own_preprocessing() -> None:
    model = torchvision_models.load_name("vit_b_32", pretrained=False)
    assert refocus.vit.classes.folder_names(model)[0] == "n01440764"
    assert preprocessing(model)["input_size"] == (3, 224, 224)
    assert preprocessing(model)["crop_pct"] == 224 / 256
    assert preprocessing(model)["mean"] == (0.485, 0.456, 0.406)
