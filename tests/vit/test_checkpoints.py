"""What training scripts leave is loaded, or refused in one line; nothing in it is run."""

from __future__ import annotations

import json
import os
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import resolve_model_data_config
from torch import Tensor, nn

import refocus
from refocus import fingerprints, references
from refocus.vit import loading
from refocus.vit.loading import preprocessing
from tests.makers import NAMES

ARCH = "vit_tiny_patch16_224"
SIZES = {"embed_dim": 24, "depth": 2, "num_heads": 3}
IMAGES = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(1)
    return timm.create_model(ARCH, img_size=64, num_classes=4, **SIZES).eval()


def arguments(**more: Any) -> dict[str, Any]:
    return {"model": ARCH, "model_kwargs": SIZES, "mean": [0.5] * 3, "std": [0.25] * 3, **more}


def prefixed(prefix: str, model: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in model.state_dict().items()}


def doubled(model: nn.Module) -> dict[str, Tensor]:
    return {name: 2 * value for name, value in model.state_dict().items()}


Record = Callable[[nn.Module], dict[str, Any]]
RECORDS: dict[str, tuple[str, Record]] = {
    "timm's train.py": (
        "model_best.pth.tar",
        lambda m: {
            "epoch": 9,
            "arch": ARCH,
            "state_dict": m.state_dict(),
            "args": Namespace(**arguments()),
        },
    ),
    "averaged weights come first": (
        "last.pth.tar",
        lambda m: {
            "arch": ARCH,
            "state_dict": doubled(m),
            "state_dict_ema": m.state_dict(),
            "args": Namespace(**arguments()),
        },
    ),
    **{
        f"averaged weights as {key}": (
            "last.pth",
            lambda m, key=key: {"model": doubled(m), key: m.state_dict(), "args": arguments()},
        )
        for key in ("ema", "ema_model", "ema_weights", "model_ema_state_dict")
    },
    "averaged weights a level deeper": (
        "last.pth",
        lambda m: {
            "model": doubled(m),
            "model_ema": {"state_dict": m.state_dict(), "decay": torch.tensor(0.9)},
            "args": arguments(),
        },
    ),
    "averaged weights beside the others": (
        "last.ckpt",
        lambda m: {
            "state_dict": {
                **{f"model.{k}": v for k, v in doubled(m).items()},
                **prefixed("model_ema.module.", m),
            },
            "args": arguments(),
        },
    ),
    "the same weights twice": (
        "last.ckpt",
        lambda m: {
            "state_dict": prefixed("model.", m) | prefixed("net.vit.", m),
            "args": arguments(),
        },
    ),
    "a second head": (
        "last.ckpt",
        lambda m: {
            "state_dict": {**prefixed("net.vit.", m), "a.head.weight": torch.ones(4, 24)},
            "args": arguments(),
        },
    ),
    "what timm's train.py writes by default": (
        "last.pth.tar",
        lambda m: {
            "state_dict": m.state_dict(),
            "args": arguments(
                std=[0.25], interpolation="", crop_pct=None, img_size=None, input_size=None, gp=None
            ),
        },
    ),
    "the size that its images had": (
        "last.pth.tar",
        lambda m: {"state_dict": m.state_dict(), "args": arguments(img_size=64)},
    ),
    "a namespace of another kind": (
        "a.pt",
        lambda m: {"model": m.state_dict(), "args": SimpleNamespace(**arguments())},
    ),
    "Lightning": (
        "epoch=3-step=100.ckpt",
        lambda m: {
            "state_dict": prefixed("model.", m),
            "hyper_parameters": arguments(),
            "pytorch-lightning_version": "2.0",
        },
    ),
    "DataParallel": (
        "b.pth",
        lambda m: {"state_dict": prefixed("module.", m), "args": arguments()},
    ),
    "compiled inside of DDP": (
        "c.bin",
        lambda m: {"model_state_dict": prefixed("module._orig_mod.", m), "args": arguments()},
    ),
    "the network of a larger module": (
        "d.pth",
        lambda m: {
            "state_dict": {**prefixed("net.vit.", m), "loss.weight": torch.ones(4)},
            "args": arguments(),
        },
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_of_training_scripts(trained: nn.Module, tmp_path: Path, name: str) -> None:
    file, record = RECORDS[name]
    torch.save(record(trained), tmp_path / file)
    model = refocus.load(tmp_path / file)
    assert torch.equal(model(IMAGES), trained(IMAGES))
    found = preprocessing(model)
    assert (found["input_size"], found["std"]) == ((3, 64, 64), (0.25,) * 3)
    refocus.save(model, tmp_path / "model")
    assert torch.equal(refocus.load(tmp_path / "model")(IMAGES), trained(IMAGES))


def _trained(**made: Any) -> nn.Module:
    sizes = {**SIZES, "num_classes": 4, **made}
    return timm.create_model("vit_small_patch16_dinov3", **sizes).eval()


def test_arguments_of_training_decide_size_pooling_and_preprocessing(tmp_path: Path) -> None:
    """Of a model whose weights look the same for every size and pooling."""
    arch, images = "vit_small_patch16_dinov3.lvd1689m", torch.rand(1, 3, 96, 96)
    trained, file = _trained(global_pool="token"), tmp_path / "w.pth"
    said = {"model": arch, "model_kwargs": SIZES, "gp": "token"}
    for size in ({"img_size": 96}, {"input_size": [3, 96, 96]}, {"input_size": 96}):
        torch.save({"state_dict": trained.state_dict(), "args": said | size}, file)
        model = refocus.load(file)
        assert torch.equal(model(images), trained(images))
        assert preprocessing(model)["input_size"] == (3, 96, 96)


@pytest.mark.parametrize("named", [None, "vit_small_patch16_224"])
def test_the_tag_of_the_weights_decides_the_preprocessing(
    tmp_path: Path, named: str | None
) -> None:
    arch, file = "vit_small_patch16_224.dino", tmp_path / "w.pth"  # the default tag has 0.5
    model = timm.create_model(arch, num_classes=4, **SIZES)
    said = {"model": arch, "model_kwargs": SIZES}
    torch.save({"state_dict": model.state_dict(), "args": said}, file)
    assert preprocessing(refocus.load(file, arch=named)) == resolve_model_data_config(model)


def test_a_class_map_needs_names(trained: nn.Module, tmp_path: Path) -> None:
    said = arguments(class_map="map.txt")
    torch.save({"state_dict": trained.state_dict(), "args": said}, tmp_path / "w.pth")
    with pytest.raises(refocus.InputError, match=r"trained with class_map map.txt.*give names"):
        refocus.load(tmp_path / "w.pth", order="natural")
    refocus.load(tmp_path / "w.pth", names=NAMES)


def test_a_state_dict_by_itself_with_the_arguments_beside_it(
    trained: nn.Module, tmp_path: Path
) -> None:
    lines = ["model: vit_tiny_patch16_224", "model_kwargs: {embed_dim: 24, depth: 2, num_heads: 3}"]
    (tmp_path / "args.yaml").write_text("\n".join([*lines, "std: [0.25, 0.25, 0.25]"]))
    torch.save(trained.state_dict(), tmp_path / "weights.pth")
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    for file in ("weights.pth", "weights.safetensors"):
        model = refocus.load(tmp_path / file)
        assert torch.equal(model(IMAGES), trained(IMAGES))
        assert preprocessing(model)["std"] == (0.25,) * 3


def test_the_output_folder_of_timms_train_py(trained: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "args.yaml").write_text("model: vit_tiny_patch16_224\n")
    torch.save(RECORDS["timm's train.py"][1](trained), tmp_path / "model_best.pth.tar")
    (tmp_path / "summary.csv").write_text("epoch\n")
    assert torch.equal(refocus.load(tmp_path)(IMAGES), trained(IMAGES))


def test_an_architecture_that_is_named_travels_with_the_reference(tmp_path: Path) -> None:
    """Of the architecture's own size: 12 blocks of width 192."""
    plain = timm.create_model(ARCH, num_classes=4).eval()
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    with pytest.raises(refocus.InputError, match=r"does not say its architecture; name it as w"):
        refocus.load(tmp_path / "w.pth")
    images = torch.zeros(1, 3, 224, 224)
    model = refocus.load(tmp_path / "w.pth", arch=ARCH, names=NAMES)
    assert torch.equal(model(images), plain(images))
    reference = loading.source(model)
    assert reference == f"{(tmp_path / 'w.pth').resolve()}?arch={ARCH}"
    assert torch.equal(refocus.load(reference)(images), plain(images))


def test_a_reference_to_a_file_may_say_architecture_and_order(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(b"1")
    said = references.with_names(f"{file}?arch={ARCH}", order="natural")
    assert references.split(said) == (str(file), {"arch": ARCH, "order": "natural"})
    before = fingerprints.of_model(said)
    file.write_bytes(b"2")
    assert fingerprints.of_model(said) != before
    old, here = os.getcwd(), tmp_path
    os.chdir(here)
    try:
        assert references.resolved(f"w.pth?arch={ARCH}") == f"{file.resolve()}?arch={ARCH}"
    finally:
        os.chdir(old)


class Trap:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("trapped",)


def _whole(model: nn.Module) -> Any:
    return model


WRONG: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "a whole model": (_whole, "holds more than weights, and reading it would run code"),
    "code": (lambda m: {"state_dict": m.state_dict(), "x": Trap()}, "would run code"),
    "a list": (lambda m: [1, 2], "holds a list; must be a state dict"),
    "no tensors": (lambda m: {"epoch": 3}, "holds no weights"),
    "no architecture": (lambda m: m.state_dict(), "does not say its architecture"),
    "another architecture": (
        lambda m: {"arch": ARCH, "state_dict": m.state_dict()},
        "give the architecture that was trained",
    ),
    "an unknown architecture": (
        lambda m: {"arch": "vit_huge_patch3", "state_dict": m.state_dict()},
        "timm knows no architecture 'vit_huge_patch3'",
    ),
    "an unknown tag": (
        lambda m: {"arch": f"{ARCH}.mine", "state_dict": m.state_dict()},
        f"knows no weights {ARCH}.mine, whose preprocessing is wanted",
    ),
    "two models": (
        lambda m: {
            "args": arguments(),
            "state_dict": prefixed("student.", m)
            | {f"teacher.{k}": v for k, v in doubled(m).items()},
        },
        "holds 2 models (student., teacher.); must hold one",
    ),
    "images of another size than its weights": (
        lambda m: {"args": arguments(img_size=96), "state_dict": m.state_dict()},
        "its arguments say images of 96x96 pixels, its weights are for 64x64",
    ),
    "images of no size": (
        lambda m: {"args": arguments(input_size=[3, None, 96]), "state_dict": m.state_dict()},
        "its arguments say input_size [3, None, 96]; must be 3, height and width",
    ),
    "an architecture without attention": (
        lambda m: {"arch": "resnet18", "state_dict": m.state_dict()},
        "resnet18: convolutions, no attention",
    ),
    "a part is missing": (
        lambda m: {
            "args": arguments(),
            "state_dict": {k: v for k, v in m.state_dict().items() if k != "norm.weight"},
        },
        "has no norm.weight, so these are not weights of",
    ),
    "no head": (
        lambda m: {
            "args": arguments(),
            "state_dict": {k: v for k, v in m.state_dict().items() if "head" not in k},
        },
        "has no head.weight, so these are not weights of",
    ),
    "a part too many": (
        lambda m: {"args": arguments(), "state_dict": {**m.state_dict(), "more": torch.ones(1)}},
        "holds more, which vit_tiny_patch16_224 has not",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_that_are_refused(
    trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = WRONG[name]
    torch.save(content(trained), "file.pth")
    with pytest.raises(refocus.InputError) as refused:
        refocus.load("file.pth")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Path("trapped").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"hello"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_no_weights(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"file{suffix}"
    file.write_bytes(content)
    with pytest.raises(refocus.InputError, match=r"cannot be read as weights|holds more than"):
        refocus.load(file)


def test_an_architecture_is_only_for_weight_files(model_folder: Path) -> None:
    with pytest.raises(refocus.InputError, match=r"arch vit_tiny.* is only for a weight file"):
        refocus.load(model_folder, arch="vit_tiny_patch16_224")


# --- transformers' Trainer and PEFT -------------------------------------------------------------


def _hf(folder: Path, *, processor: Path | None) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(NAMES)),
        label2id={name: i for i, name in enumerate(NAMES)},
    )
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(folder)
    if processor:
        size = {"height": 32, "width": 32}
        transformers.ViTImageProcessor(size=size).save_pretrained(processor)
    return model


def test_a_trainers_checkpoint_has_its_processor_in_the_folder_above(tmp_path: Path) -> None:
    run = tmp_path / "run"
    model = _hf(run / "checkpoint-500", processor=run)
    torch.save({}, run / "checkpoint-500" / "optimizer.pt")
    found = refocus.load(run / "checkpoint-500")
    images = torch.zeros(1, 3, 32, 32)
    assert torch.equal(found(images).logits, model(images).logits)
    (run / "checkpoint-1000").mkdir()
    with pytest.raises(refocus.InputError, match=r"holds training checkpoints; give .*point-1000"):
        refocus.load(run)


def test_without_any_processor_the_line_says_how_to_get_one(tmp_path: Path) -> None:
    _hf(tmp_path / "checkpoint-500", processor=None)
    with pytest.raises(refocus.InputError, match=r"preprocessor_config.json is missing.*copy it"):
        refocus.load(tmp_path / "checkpoint-500")


def test_an_adapter_is_merged_into_its_base(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    _hf(tmp_path / "base", processor=tmp_path / "base")
    base = transformers.ViTForImageClassification.from_pretrained(tmp_path / "base")
    targets = [n for n, m in base.named_modules() if isinstance(m, nn.Linear) and "attention" in n]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT's own, of transformers
        adapted = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=targets))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    adapted.save_pretrained(tmp_path / "lora")
    images = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    found = refocus.load(tmp_path / "lora")
    torch.testing.assert_close(found(images).logits, adapted.eval()(images).logits)
    assert type(found).__name__ == "ViTForImageClassification"
    assert refocus.explain(found, images).relevance.shape == (1, 32, 32)
    assert preprocessing(found)["mean"] == (0.5,) * 3  # of the base
    own = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "size": {"height": 32, "width": 32}}
    transformers.ViTImageProcessor(**own).save_pretrained(tmp_path / "lora")
    (tmp_path / "lora" / "checkpoint-9").mkdir()  # of a Trainer, which keeps it in the folder above
    for file in (tmp_path / "lora").glob("adapter_*"):
        (tmp_path / "lora" / "checkpoint-9" / file.name).write_bytes(file.read_bytes())
    for folder in (tmp_path / "lora", tmp_path / "lora" / "checkpoint-9"):
        said = preprocessing(refocus.load(folder))
        assert (said["mean"], said["std"]) == ((0.4,) * 3, (0.2,) * 3)
    (tmp_path / "lora" / "adapter_model.safetensors").unlink()
    with pytest.raises(refocus.InputError, match=r"adapter_model.safetensors is missing"):
        refocus.load(tmp_path / "lora")


def test_weights_as_pytorch_model_bin_are_refused_with_the_way_out(tmp_path: Path) -> None:
    model = _hf(tmp_path / "bin", processor=tmp_path / "bin")
    torch.save(model.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    (tmp_path / "bin" / "model.safetensors").unlink()
    with pytest.raises(refocus.InputError, match=r"pytorch_model.bin; write them as safetensors"):
        refocus.load(tmp_path / "bin")


def test_an_adapter_that_names_no_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": null}')
    with pytest.raises(refocus.InputError, match=r"names no base model; merge it"):
        refocus.load(tmp_path)


@pytest.mark.parametrize("base", ["lora", "other", "./lora"])
def test_an_adapter_of_an_adapter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lora", "other"):
        (tmp_path / name).mkdir()
        content = {"base_model_name_or_path": base, "peft_type": "LORA"}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(content))
    with pytest.raises(refocus.InputError, match="which is an adapter as well"):
        refocus.load(tmp_path / "lora")


@pytest.mark.parametrize(
    "changed",
    [
        {"head.weight": torch.tensor(1.0)},
        {"head.weight": torch.zeros(4)},
        {"patch_embed.proj.weight": torch.tensor(1.0)},
        {"patch_embed.proj.weight": torch.zeros(24, 3, 8, 0)},
        {"pos_embed": torch.tensor(1.0)},
        {"pos_embed": torch.zeros(1, 0, 24)},
    ],
    ids=str,
)
def test_weights_of_another_shape_are_said(
    trained: nn.Module, tmp_path: Path, changed: dict[str, Tensor]
) -> None:
    file = tmp_path / "a.pth"
    torch.save({**trained.state_dict(), **changed}, file)
    with pytest.raises(refocus.InputError):
        refocus.load(file, arch="vit_tiny_patch16_224")
