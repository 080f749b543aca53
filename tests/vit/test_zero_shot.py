"""Zero-shot classifiers of CLIP and SigLIP."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import refocus
from refocus.relevance.answers import logits_of
from refocus.vit import zero_shot
from tests.makers import NAMES, invoke
from tests.zoo import build, images_for


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    """A tiny CLIP with a tokenizer of words and an image processor, as saved."""
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
    invoke(
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
    assert refocus.vit.classes.class_names(model) == ["ant", "polar_bear", "dog"]
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
    with pytest.raises(refocus.InputError, match="must be CLIPModel or SiglipModel"):
        zero_shot.build(str(tmp_path / "vit"), NAMES, NAMES, ["{}"])
    bad = tmp_path / "bad.txt"
    bad.write_text("no place\n")
    for odd in ("a {thing} {}", "a {{}}"):
        (tmp_path / "odd.txt").write_text(odd)
        with pytest.raises(refocus.InputError, match=r"hold \{\} once|must be CLIPModel"):
            invoke(
                "zero-shot",
                "--model",
                tmp_path / "vit",
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
            invoke(
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
