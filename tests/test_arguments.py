"""Arguments that no public function can use: each is refused in one line that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import refocus

MAPS = torch.rand(2, 8, 8)
NAN = MAPS * torch.nan
FEATURES = torch.rand(12, 4)
PICTURE = Image.new("RGB", (40, 30))
PLAIN = nn.Linear(2, 2)
Row = tuple[Callable[..., object], tuple[Any, ...], dict[str, Any], str]

CALLS: dict[str, Row] = {
    "load: nothing": (refocus.load, (None,), {}, "model: NoneType; must be a name or a folder"),
    "load: a module": (refocus.load, (PLAIN,), {}, "model: torch.nn.modules.linear.Linear"),
    "load: empty": (refocus.load, ("",), {}, "model: str ''"),
    "load: device": (
        refocus.load,
        ("vit_tiny_patch16_224",),
        {"pretrained": False, "device": "gpu"},
        "device: str 'gpu'; must be a device of torch, such as cpu or cuda:0",
    ),
    "load: absent device": (
        refocus.load,
        ("vit_tiny_patch16_224",),
        {"pretrained": False, "device": "cuda:99"},
        "device cuda:99: not usable here (",
    ),
    "load: pretrained": (
        refocus.load,
        ("vit_tiny_patch16_224",),
        {"pretrained": "no"},
        "pretrained no: must be True or False",
    ),
    "load: order": (
        refocus.load,
        ("vit_tiny_patch16_224",),
        {"pretrained": False, "order": "size"},
        "order size",
    ),
    "save: a name": (refocus.save, ("vit", "out"), {}, "model: str 'vit'; must be a torch.nn"),
    "save: no folder": (refocus.save, (PLAIN, None), {}, "folder: NoneType; must be the path"),
    "read_image: a picture": (refocus.read_image, (PICTURE,), {}, "path: PIL.Image.Image [40, 30]"),
    "read_image: nothing": (refocus.read_image, (None,), {}, "path: NoneType; must be the path"),
    "read_image: absent": (refocus.read_image, ("no.png",), {}, "no.png: no such image"),
    "read_mask: an array": (refocus.read_mask, (np.zeros((2, 2)),), {}, "path: numpy.ndarray"),
    "read_mask: image as a path": (
        refocus.read_mask,
        ("m.png", "i.png"),
        {},
        "image: str 'i.png'; must be a PIL image",
    ),
    "read_mask: invert": (
        refocus.read_mask,
        ("m.png",),
        {"invert": "no"},
        "invert no: must be True or False",
    ),
    "read_mask: a number": (
        refocus.read_mask,
        ("m.png",),
        {"invert": 2},
        "invert 2: must be True or False",
    ),
    "eval_image: a name": (refocus.eval_image, ("vit",), {}, "model: str 'vit'"),
    "eval_image: a plain module": (refocus.eval_image, (PLAIN,), {}, "says nothing of its prep"),
    "tokencut: an array": (refocus.tokencut, (np.zeros((12, 4)), (3, 4)), {}, "features: numpy"),
    "tokencut: a batch": (refocus.tokencut, (MAPS, (2, 4)), {}, "features: [2, 8, 8] float32"),
    "tokencut: NaN": (refocus.tokencut, (FEATURES * torch.nan, (3, 4)), {}, "NaN or infinite"),
    "tokencut: another grid": (refocus.tokencut, (FEATURES, (3, 3)), {}, "grid of 3 x 3"),
    "tokencut: one side": (refocus.tokencut, (FEATURES, 12), {}, "grid: int 12; must be two"),
    "tokencut: floats": (refocus.tokencut, (FEATURES, (3.0, 4.0)), {}, "grid: tuple"),
    "tokencut: tau": (refocus.tokencut, (FEATURES, (3, 4), 2), {}, "tau: int 2; must be a cos"),
    "scores: an array": (
        refocus.segmentation_scores,
        (MAPS.numpy(), MAPS),
        {},
        "relevance: numpy.ndarray [2, 8, 8]; must be a tensor [B, H, W]",
    ),
    "scores: one map": (refocus.segmentation_scores, (MAPS[0], MAPS), {}, "relevance: [8, 8]"),
    "scores: sizes": (refocus.segmentation_scores, (MAPS, MAPS[:, :4]), {}, "must both be"),
    "scores: 0..255": (refocus.segmentation_scores, (MAPS, MAPS * 255), {}, "masks: values from"),
    "scores: NaN": (refocus.segmentation_scores, (NAN, MAPS), {}, "relevance: holds NaN"),
    "share: NaN mask": (refocus.background_share, (MAPS, NAN), {}, "masks: values from nan"),
    "share: bytes": (
        refocus.background_share,
        (MAPS, (MAPS * 255).byte()),
        {},
        "divide 0/255 masks by 255",
    ),
    "share: counts": (refocus.background_share, (MAPS, MAPS[:1]), {}, "masks: 1 for 2 maps"),
    "share: covered": (
        refocus.background_share,
        (MAPS, MAPS, 8),
        {},
        "covered: int 8; must be two positive whole numbers",
    ),
    "share: flags as sides": (
        refocus.background_share,
        (MAPS, MAPS, (True, True)),
        {},
        "covered: tuple; must be two positive whole numbers",
    ),
    "share: signed maps": (
        refocus.background_share,
        (MAPS - 0.5, MAPS),
        {},
        "patches: values from -0.",
    ),
    "share: infinite maps": (refocus.background_share, (MAPS / 0, MAPS), {}, "patches: values"),
    "share: a channel": (refocus.background_share, (MAPS, MAPS[:, None]), {}, "masks: [2, 1, 8"),
    "export: doubles": (
        refocus.export_onnx,
        (nn.Linear(2, 2).double(), "x"),
        {},
        "model: its weights are float64; must be float32",
    ),
    "export: tolerance": (
        refocus.export_onnx,
        (PLAIN, "x"),
        {"tolerance": "0.1"},
        "tolerance 0.1: must be a number of at least 0",
    ),
    "tune: a dictionary": (refocus.tune, ({"model": "m"}, "out"), {}, "recipe: dict; must be a"),
    "resume: nothing": (refocus.resume, (None,), {}, "run: NoneType; must be the path"),
    "resume: absent": (refocus.resume, ("absent",), {}, "not a run folder"),
    "evaluate: a name": (refocus.evaluate, ("vit", "images"), {}, "model: str 'vit'"),
    "evaluate: a number": (refocus.evaluate, (PLAIN, 3), {}, "tests: int 3; must be the path"),
    "evaluate: batch": (refocus.evaluate, (PLAIN, "i"), {"batch_size": 0}, "batch_size 0: must"),
    "find_masks: images": (refocus.find_masks, (3, "out"), {}, "images: int 3; must be the path"),
    "find_masks: out": (refocus.find_masks, ("images", None), {}, "out: NoneType"),
    "find_masks: settings": (
        refocus.find_masks,
        ("images", "out", {"size": 3}),
        {},
        "settings: dict; must be a refocus.MaskSettings",
    ),
    "shifts: masks": (refocus.shifts, ("images", None, "out"), {}, "masks: NoneType"),
    "shifts: settings": (refocus.shifts, ("i", "m", "o", "size"), {}, "settings: str 'size'"),
    "audit: images": (refocus.audit, ("vit", None, "out"), {}, "images: NoneType"),
    "audit: out": (refocus.audit, ("vit", "images", 3), {}, "out: int 3"),
    "audit: a module": (refocus.audit, (PLAIN, "images", "out"), {}, "model: torch.nn.modules"),
    "audit: settings": (
        refocus.audit,
        ("vit", "images", "out"),
        {"settings": 3},
        "settings: int 3; must be a refocus.AuditSettings",
    ),
    "probe: a module": (refocus.probe, (PLAIN, "out"), {}, "model: torch.nn.modules"),
    "probe: images": (refocus.probe, ("vit", "out"), {"images": 3}, "images: int 3; must be"),
    "probe: settings": (refocus.probe, ("vit", "out", ["fgsm"]), {}, "settings: list; must be a"),
    **{
        f"{function.__name__}: {flag}": (function, given, {flag: "no"}, f"{flag} no: must be True")
        for function, given, flag in (
            (refocus.objective, ("refocus",), "second_order"),
            (refocus.objective, ("refocus",), "recompute"),
            (refocus.tune, (refocus.Recipe("m", "i", "k"), "out"), "progress"),
            (refocus.resume, ("absent",), "progress"),
            (refocus.run, ("vit", "images", "out"), "progress"),
            (refocus.find_masks, ("images", "out"), "resume"),
            (refocus.shifts, ("images", "masks", "out"), "resume"),
            (refocus.audit, ("vit", "images", "out"), "resume"),
        )
    },
    "report: nothing": (refocus.report, (None,), {}, "run: NoneType; must be the path"),
    "report: settings": (refocus.report, ("run", 3), {}, "settings: int 3; must be a refocus.Rep"),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_are_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    function, given, named, message = CALLS[name]
    with pytest.raises(refocus.InputError) as refused:
        function(*given, **named)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())  # nothing was begun
