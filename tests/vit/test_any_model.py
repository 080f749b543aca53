"""Models from other libraries and of the user's own, through the commands; zero-shot classifiers;
targets that are no class.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

import refocus
from refocus.cli import main
from refocus.cli.models import class_names, markdown, spoken
from refocus.data.transforms import eval_image
from refocus.relevance.attention import logits_of
from refocus.tuning import tune
from refocus.vit import torchvision_models, transformers_models, zero_shot
from refocus.vit.loading import preprocessing
from tests.makers import NAMES, ROOT
from tests.own_vit import OwnViT
from tests.zoo import build, images_for

Build = Callable[..., nn.Module]
DOCS = ROOT / "docs"
SAVED = {
    "EVA-02": ("EVA", "EVA-02"),
    "transformers": ("DINOv2 (transformers)", "registers"),
    "zero-shot": ("zero-shot CLIP, SigLIP", "SigLIP"),
    "torchvision": ("ViT (torchvision)", ""),
}


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main.app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("kind", [*SAVED, "own"])
def test_the_commands_work_on_models_of_every_library(
    kind: str, tmp_path: Path, image_folders: tuple[Path, Path]
) -> None:
    images, masks = image_folders
    if kind == "own":
        model, tuned = (
            "py:tests.own_vit:build",
            f"py:tests.own_vit:build@{tmp_path / 'run' / 'model'}",
        )
    else:
        model, tuned = str(tmp_path / "model"), str(tmp_path / "run" / "model")
        refocus.save(build(*SAVED[kind]), model)
    run("explain", images / "ant" / "0.png", "--model", model, "--out", tmp_path / "look")
    settings = (
        "--epochs",
        1,
        "--shots",
        1,
        "--lr",
        1e-3,
        "--device",
        "cpu",
        "--objective",
        "refocus",
        "--no-do-no-harm",
    )
    run(
        "tune",
        "--model",
        model,
        "--images",
        images,
        "--masks",
        masks,
        "--out",
        tmp_path / "run",
        *settings,
    )
    before, after = (refocus.load(ref).state_dict() for ref in (model, tuned))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    run(
        "evaluate",
        "--model",
        tuned,
        "--against",
        model,
        "--on",
        f"own={images}",
        "--out",
        tmp_path / "proof",
        "--device",
        "cpu",
    )
    assert json.loads((tmp_path / "proof" / "results.json").read_text())["suites"]["own"]["n"] == 24
    run(
        "audit",
        "--model",
        tuned,
        "--images",
        images,
        "--masks",
        masks,
        "--out",
        tmp_path / "audit",
        "--device",
        "cpu",
    )
    assert "own" not in refocus.vit.loading.source(refocus.load(tuned)) or kind == "own"


# --- the user's own -----------------------------------------------------------------------------


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_module_that_describes_itself(by_hand: bool) -> None:
    torch.manual_seed(0)
    model, images = OwnViT(by_hand), torch.randn(2, 3, 32, 40)
    other = OwnViT(not by_hand)
    other.load_state_dict(model.state_dict())
    found = refocus.explain(model, images, [0, 3]).patches
    assert found.shape == (2, 4, 5)
    torch.testing.assert_close(
        found, refocus.explain(other, images, [0, 3]).patches
    )  # either way of forming maps
    masks = torch.zeros(2, 1, 32, 40)
    refocus.objective("relevance")(model, images, masks, torch.tensor([0, 1]))["loss"].backward()
    assert model.blocks[0].qkv.weight.grad.abs().sum() > 0
    with pytest.raises(refocus.InputError, match="know its blocks"):
        refocus.vit.loading.own_models.view(model) and refocus.tuning.tune.restrict(
            model, last_blocks=1
        )


def test_the_example_of_the_docs_runs_and_is_under_15_lines() -> None:
    code = re.search(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), re.S)
    assert code is not None
    described = code.group(1).split("prefix = 1", 1)[1]
    assert sum(bool(line.strip()) for line in described.splitlines()) < 15
    names: dict[str, Any] = {}
    exec(code.group(1), names)
    example = names["MyViT"]()
    assert example.grid(32, 48) == (2, 3)
    assert example.readout(5).tolist() == [1, 0, 0, 0, 0]
    with example.attention_maps() as maps:
        assert maps == []


def test_a_folder_alone_runs_no_code(
    tmp_path: Path, image_folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = image_folders
    made_by, folder = "py:tests.own_vit:build", tmp_path / "run"
    recipe = refocus.Recipe(
        made_by, str(images), str(masks), epochs=2, shots=1, device="cpu", do_no_harm=False
    )
    monkeypatch.setattr(tune, "_conclude", lambda *_: {})  # interrupted before its end
    refocus.tune(recipe, folder, progress=False)
    monkeypatch.undo()
    with pytest.raises(refocus.InputError, match=f"add --code {made_by}"):
        refocus.resume(folder, progress=False)
    with pytest.raises(refocus.InputError, match="add --code"):
        refocus.resume(folder, code="py:another:build", progress=False)
    run("tune", "--resume", folder, "--code", made_by)
    with pytest.raises(refocus.InputError, match="add --code"):
        run("report", folder, "--device", "cpu")
    run("report", folder, "--device", "cpu", "--code", made_by, "--most", 4)
    assert (folder / "report.html").is_file()


def test_transformers_never_asks_whether_to_run_a_folders_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    config = {
        "model_type": "evil",
        "architectures": ["Evil"],
        "auto_map": {"AutoConfig": "evil.Evil"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(refocus.InputError, match="cannot be loaded"):
        refocus.load(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("py:tests.own_vit", r"legal is py:MODULE:FUNCTION"),
        ("py:tests.no_such:build", "no_such"),
        ("py:tests.own_vit:nothing", "nothing"),
        ("py:tests.zoo:from_torchvision@nowhere", "does not hold weights"),
        ("py:tests.makers:no", "no attribute"),
        ("py:json:loads", "TypeError"),
        ("x" * 300, "not a timm model name"),
        ("~nobody-has-this-name/x", "no such folder"),
        ("py:builtins:dict", r"returned a dict; legal is a torch\.nn\.Module"),
        ("torchvision:resnet50", "legal are vit_b_16"),
        ("torchvision:vit_b_16.BEST", "legal are IMAGENET1K_V1"),
    ],
)
def test_unusable_references(ref: str, message: str) -> None:
    with pytest.raises(refocus.InputError, match=message):
        refocus.load(ref)


def test_a_folder_cannot_name_code_to_run(tmp_path: Path) -> None:
    refocus.save(OwnViT(), tmp_path / "saved")
    with pytest.raises(refocus.InputError, match="py:MODULE:FUNCTION@"):
        refocus.load(tmp_path / "saved")


# --- targets ------------------------------------------------------------------------------------


def test_a_function_of_the_logits_is_explained(tiny: Build) -> None:
    model, images = tiny(), torch.randn(2, 3, 32, 32)
    e = refocus.explain(model, images, lambda z: z[:, 2])
    assert torch.equal(e.patches, refocus.explain(model, images, 2).patches)
    assert torch.equal(e.targets, e.logits[:, 2])
    both = refocus.explain(model, images, lambda z: z[:, [1, 2]].sum(1))
    assert not torch.equal(both.patches, e.patches)
    with pytest.raises(refocus.InputError, match="one score for each of 2 images"):
        refocus.explain(model, images, lambda z: z)


def test_a_regression_head_is_explained_and_tuned(tiny: Build) -> None:
    model, images = tiny(num_classes=1), torch.randn(2, 3, 32, 32)
    masks = torch.zeros(2, 1, 32, 32)
    masks[..., :16] = 1
    step = refocus.objective("relevance", target=lambda z: z[:, 0], classification=0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    found = []
    for _ in range(8):
        terms = step(model, images, masks, torch.zeros(2, dtype=torch.long))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        found.append(terms["background"].item())
    assert found[-1] < found[0]
    with pytest.raises(refocus.InputError, match="does not read it"):
        refocus.objective("finetune", target=lambda z: z[:, 0])


# --- transformers -------------------------------------------------------------------------------


def test_preprocessing_is_the_image_processors(tmp_path: Path) -> None:
    from transformers import ViTImageProcessor

    model: Any = build("ViT (transformers)", "ViT")
    image = Image.effect_noise((50, 40), 80).convert("RGB")
    centre = {
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "size": {"shortest_edge": 36},
    }
    for settings in ({"size": {"height": 32, "width": 32}}, centre):
        processor = ViTImageProcessor(
            resample=3, image_mean=[0.4] * 3, image_std=[0.2] * 3, **settings
        )
        model.pretrained_cfg = transformers_models.preprocessing(processor)
        assert preprocessing(model)["mean"] == (0.4,) * 3
        ours = eval_image(model)(image)
        assert ours.shape == (3, 32, 32)
        if "do_center_crop" not in settings:  # this processor class has no crop
            theirs = processor(image, return_tensors="pt")["pixel_values"][0]
            assert (ours - theirs).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_rescale": False}, "do_rescale"),
        ({"do_resize": False}, "do_resize"),
        ({"image_mean": None}, "image_mean"),
        ({"resample": 5}, "resample"),
        ({"size": {"longest_edge": 40}}, "longest_edge"),
        ({"size": {"shortest_edge": 40}}, "no common size"),
    ],
)
def test_image_processors_that_do_something_else_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    settings = {
        "size": {"height": 32, "width": 32},
        "resample": 3,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        **changes,
    }
    with pytest.raises(refocus.InputError, match=message):
        transformers_models.preprocessing(SimpleNamespace(**settings))


def test_imagenets_labels_answer_to_wordnet_ids(tmp_path: Path) -> None:
    from timm.data import ImageNetInfo
    from transformers import ViTConfig, ViTForImageClassification

    table = ImageNetInfo("imagenet-1k")
    labels = {i: table.index_to_description(i) for i in range(1000)}
    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "intermediate_size": 48,
    }
    plain = ViTForImageClassification(
        ViTConfig(**sizes, image_size=32, patch_size=8, id2label=labels)
    )
    plain.save_pretrained(tmp_path)
    build("ViT (transformers)", "ViT").image_processor.save_pretrained(tmp_path)
    model = refocus.load(tmp_path)
    assert refocus.vit.loading.folder_names(model)[0] == "n01440764"
    assert refocus.vit.loading.class_names(model)[0].startswith("tench")


def test_half_precision_checkpoints_are_tuned_in_float32(tmp_path: Path) -> None:
    model: Any = build("ViT (transformers)", "ViT")
    refocus.save(model.bfloat16(), tmp_path / "half")
    assert {p.dtype for p in refocus.load(tmp_path / "half").parameters()} == {torch.float32}


def test_a_folder_without_a_head_or_with_pickles_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    refocus.save(build("ViT (transformers)", "ViT"), folder)
    whole = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in whole.items() if "classifier" not in k},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(refocus.InputError, match=r"2 weights are missing.*classifier"):
        refocus.load(folder)
    torch.save(whole, folder / "model.safetensors")
    with pytest.raises(refocus.InputError, match="cannot be loaded"):
        refocus.load(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "architectures": ["ViTMAEForPreTraining"]})
    )
    with pytest.raises(
        refocus.InputError,
        match=r"ViTMAEForPreTraining is not supported; legal are ViTForImageClassification",
    ):
        refocus.load(folder)


def test_windows_and_convolutions_of_other_libraries_are_refused() -> None:
    from torchvision.models import resnet18, swin_t
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1], num_heads=[2], window_size=4
    )
    refused = {
        "windowed": (SwinForImageClassification(config), swin_t()),
        "convolutions": (resnet18(),),
        "family": (nn.Linear(2, 2),),
    }
    for reason, model in ((why, m) for why, models in refused.items() for m in models):
        with pytest.raises(refocus.InputError, match=f"{reason}.*docs/extending.md"):
            refocus.explain(model, torch.zeros(1, 3, 32, 32))


# --- zero-shot ----------------------------------------------------------------------------------


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    """A tiny CLIP with a tokenizer of words and an image processor, as save_pretrained writes
    them.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, ViTImageProcessor

    words = [
        "[PAD]",
        "[UNK]",
        "[END]",
        "a",
        "photo",
        "of",
        "the",
        "ant",
        "bee",
        "cat",
        "dog",
        "polar",
        "bear",
    ]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]"
    )
    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 48,
    }
    ends = {"bos_token_id": 3, "eos_token_id": 2, "pad_token_id": 0}
    text = {**sizes, **ends, "vocab_size": len(words), "max_position_embeddings": 12}
    config = CLIPConfig(
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        text_config=text,
        projection_dim=12,
    )
    folder = tmp_path / "clip"
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_a_zero_shot_classifier_answers_as_clip_does(clip_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, CLIPModel

    sentences = tmp_path / "sentences.txt"
    sentences.write_text("a photo of the {}\n")
    out = tmp_path / "classifier"
    run(
        "zero-shot",
        "--model",
        clip_folder,
        "--names",
        "ant,polar_bear,dog",
        "--out",
        out,
        "--templates",
        sentences,
    )
    model = refocus.load(out)
    images = images_for(model)
    whole, tokenizer = (
        CLIPModel.from_pretrained(clip_folder).eval(),
        AutoTokenizer.from_pretrained(clip_folder),
    )
    texts = [f"a photo of the {word}" for word in ("ant", "polar bear", "dog")]
    tokens = tokenizer(texts, padding="max_length", max_length=12, return_tensors="pt")
    with torch.inference_mode():
        expected = whole(
            **{k: tokens[k] for k in ("input_ids", "attention_mask")}, pixel_values=images
        ).logits_per_image
        torch.testing.assert_close(logits_of(model, images), expected)
    assert refocus.vit.loading.class_names(model) == ["ant", "polar_bear", "dog"]
    assert refocus.explain(model, images).patches.shape == (2, 4, 4)


def test_the_ensemble_is_the_mean_over_sentences(clip_folder: Path) -> None:
    models = [
        zero_shot.build(str(clip_folder), NAMES, NAMES, s)
        for s in (["a {}"], ["the {}"], ["a {}", "the {}"])
    ]
    one, two, both = (m.classifier.weight for m in models)
    torch.testing.assert_close(both, nn.functional.normalize(one + two, dim=-1))
    assert len(zero_shot.templates()) == len(set(zero_shot.templates())) == 80
    assert all(s.count("{}") == 1 for s in zero_shot.templates())


def test_zero_shot_refuses_what_it_cannot_use(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(refocus.InputError, match="refocus zero-shot"):
        refocus.load(clip_folder)
    refocus.save(build("ViT (transformers)", "ViT"), tmp_path / "vit")
    with pytest.raises(refocus.InputError, match="legal are CLIPModel and SiglipModel"):
        zero_shot.build(str(tmp_path / "vit"), NAMES, NAMES, ["{}"])
    bad = tmp_path / "bad.txt"
    bad.write_text("no place\n")
    for odd in ("a {thing} {}", "a {{}}"):
        (tmp_path / "odd.txt").write_text(odd)
        with pytest.raises(refocus.InputError, match=r"hold \{\} once|cannot be loaded"):
            run(
                "zero-shot",
                "--model",
                "no-such-model",
                "--names",
                "a,b",
                "--out",
                tmp_path / "new",
                "--templates",
                tmp_path / "odd.txt",
            )
    cases = (
        ("ant", (), "1 names"),
        ("ant,ant", (), "each once"),
        ("ant,bee", ("--templates", bad), "hold {} once"),
    )
    for names, more, message in cases:
        with pytest.raises(refocus.InputError, match=message):
            run(
                "zero-shot",
                "--model",
                clip_folder,
                "--names",
                names,
                "--out",
                tmp_path / "new",
                *more,
            )
    assert not (tmp_path / "new").exists()


def test_siglips_words_by_its_own_tokenizer(tmp_path: Path) -> None:
    import sentencepiece
    from transformers import SiglipConfig, SiglipModel, SiglipTokenizer, ViTImageProcessor

    (tmp_path / "words.txt").write_text(
        "\n".join(f"a photo of the {name} number {i}" for i in range(40) for name in NAMES)
    )
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    files = {"input": str(tmp_path / "words.txt"), "model_prefix": str(tmp_path / "spiece")}
    sentencepiece.SentencePieceTrainer.train(**files, **ids, vocab_size=34, minloglevel=2)
    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 48,
    }
    vision, text = (
        {**sizes, "image_size": 32, "patch_size": 8},
        {**sizes, "vocab_size": 34, "max_position_embeddings": 32},
    )
    folder = tmp_path / "siglip"
    whole = SiglipModel(SiglipConfig(vision_config=vision, text_config=text)).eval()
    whole.save_pretrained(folder)
    tokenizer = SiglipTokenizer(str(tmp_path / "spiece.model"))
    tokenizer.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    model = zero_shot.build(str(folder), NAMES, NAMES, ["a photo of the {}"])
    tokens = tokenizer(
        [f"a photo of the {name}" for name in NAMES],
        padding="max_length",
        max_length=32,
        return_tensors="pt",
    )
    images = images_for(model)
    with torch.inference_mode():
        expected = whole(input_ids=tokens["input_ids"], pixel_values=images).logits_per_image
        torch.testing.assert_close(logits_of(model, images), expected)


def test_names_come_from_a_file_or_folders_and_are_spoken(tmp_path: Path) -> None:
    for name in ("n02123045", "sea_star"):
        (tmp_path / "images" / name).mkdir(parents=True)
    listed = tmp_path / "names.txt"
    listed.write_text("ant\nbee\n\n")
    assert class_names(str(tmp_path / "images")) == ["n02123045", "sea_star"]
    assert class_names(str(listed)) == ["ant", "bee"]
    assert [spoken(name) for name in ("n02123045", "sea_star")] == ["tabby", "sea star"]


# --- torchvision, docs --------------------------------------------------------------------------


def test_torchvision_by_name_carries_imagenets_names_and_its_own_preprocessing() -> None:
    model = torchvision_models.load_name("vit_b_32", pretrained=False)
    assert refocus.vit.loading.folder_names(model)[0] == "n01440764"
    assert preprocessing(model)["input_size"] == (3, 224, 224)
    assert preprocessing(model)["crop_pct"] == 224 / 256
    assert preprocessing(model)["mean"] == (0.485, 0.456, 0.406)


def test_the_docs_list_the_families_of_the_table() -> None:
    assert (DOCS / "models.md").read_text() == markdown()
    shown = run("models")
    assert "BEiT" in shown
    assert "…" not in shown  # names are to be copied


@pytest.mark.slow
def test_two_processes_tune_a_model_with_weights_that_nobody_reads(
    tmp_path: Path, image_folders: tuple[Path, Path]
) -> None:
    """DINOv2's mask token gets no gradient, which a distributed wrapper takes for an error unless
    it is told.
    """
    images, masks = image_folders
    refocus.save(build("DINOv2 (transformers)", "plain"), tmp_path / "model")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "refocus.cli",
        "tune",
    ]
    settings = [
        "--epochs",
        "2",
        "--shots",
        "1",
        "--batch-size",
        "2",
        "--lr",
        "1e-3",
        "--device",
        "cpu",
        "--no-do-no-harm",
    ]
    folders = [
        "--model",
        tmp_path / "model",
        "--images",
        images,
        "--masks",
        masks,
        "--out",
        tmp_path / "run",
    ]
    command = [*launch, *settings, *(str(part) for part in folders)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
