"""Tiny segmenters of random weights, saved as their libraries do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

LABELS = {0: "background", 1: "cat, kitten", 2: "bee"}
_SIDE = {"height": 64, "width": 64}


def _tokenizer(*words: str) -> Any:
    """Of whole words, so that no vocabulary is fetched."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    table = {word: i for i, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", *words))}
    made = Tokenizer(WordLevel(table, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def segformer(folder: Path) -> None:
    import transformers

    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16],
        patch_sizes=[3, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
        decoder_hidden_size=8, id2label=LABELS,
    )  # fmt: skip
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    transformers.SegformerImageProcessor(size=_SIDE).save_pretrained(folder)


def mask2former(folder: Path) -> None:
    import transformers

    swin = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2,
        num_attention_heads=2, num_queries=5, id2label=LABELS,
    )  # fmt: skip
    transformers.Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    transformers.Mask2FormerImageProcessor(size=_SIDE).save_pretrained(folder)


def sam(folder: Path) -> None:
    import transformers

    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64,
            "patch_size": 16, "output_channels": 16, "mlp_dim": 16, "window_size": 2,
            "global_attn_indexes": [0], "num_pos_feats": 8,
        },
        prompt_encoder_config={
            "hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )  # fmt: skip
    transformers.SamModel(config).save_pretrained(folder)
    image = transformers.SamImageProcessor(
        size={"longest_edge": 64}, pad_size=_SIDE, mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )  # fmt: skip
    transformers.SamProcessor(image).save_pretrained(folder)


def sam2(folder: Path) -> None:
    import transformers

    hiera = {
        "hidden_size": 8, "num_attention_heads": 1, "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [2, 2, 2, 2],
        "window_positional_embedding_background_size": [2, 2], "global_attention_blocks": [3],
    }  # fmt: skip
    config = transformers.Sam2Config(
        vision_config={
            "backbone_config": {"model_type": "sam2_hiera_det_model", **hiera},
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 16,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )  # fmt: skip
    transformers.Sam2Model(config).save_pretrained(folder)
    image = transformers.Sam2ImageProcessor(size=_SIDE, mask_size={"height": 16, "width": 16})
    transformers.Sam2Processor(image).save_pretrained(folder)


def clipseg(folder: Path) -> None:
    import transformers

    sizes = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }  # fmt: skip
    config = transformers.CLIPSegConfig(
        text_config={**sizes, "vocab_size": 9, "eos_token_id": 3, "bos_token_id": 2},
        vision_config={**sizes, "image_size": 64, "patch_size": 16},
        projection_dim=16, reduce_dim=8, extract_layers=[0, 1], decoder_intermediate_size=16,
        decoder_num_attention_heads=2,
    )  # fmt: skip
    transformers.CLIPSegForImageSegmentation(config).save_pretrained(folder)
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer("cat", "bee"), pad_token="[PAD]", unk_token="[UNK]"
    )
    transformers.CLIPSegProcessor(
        transformers.ViTImageProcessor(size=_SIDE), words
    ).save_pretrained(folder)


def grounding_dino(folder: Path) -> None:
    import transformers

    swin = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 1], window_size=2,
        out_features=["stage2", "stage3"],
    )  # fmt: skip
    bert = transformers.BertConfig(
        vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    config = transformers.GroundingDinoConfig(
        backbone_config=swin, text_config=bert, d_model=32, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, num_queries=5, num_feature_levels=3,
    )  # fmt: skip
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    words = transformers.BertTokenizer(
        vocab={w: i for i, w in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "cat", "bee"))}
    )
    image = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    transformers.GroundingDinoProcessor(image, words).save_pretrained(folder)


MAKERS: dict[str, Callable[[Path], None]] = {
    made.__name__: made for made in (segformer, mask2former, sam, sam2, clipseg, grounding_dino)
}
