"""Every family and variant of tests/zoo.py through the same questions.

A row of the table without a model here fails.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

import refocus
from refocus.relevance.answers import logits_of
from refocus.relevance.attention import attention_maps
from refocus.relevance.gae import relevance_patches
from refocus.vit.families import FAMILIES, family, view
from tests.makers import NAMES
from tests.zoo import CASES, ZOO, build, images_for

every = pytest.mark.parametrize(
    ("name", "variant"), CASES, ids=[f"{f}-{v}".strip("-") for f, v in CASES]
)


def test_every_row_of_the_table_is_tested() -> None:
    assert list(ZOO) == list(FAMILIES)
    assert {type(build(f, v)).__name__ for f, v in CASES} == {
        name for row in FAMILIES.values() for name in row.classes
    }


@contextmanager
def softmaxes(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """What the libraries' own eager attention takes the softmax of, in the order of the layers.

    Nothing of ours is used.
    """
    found: list[Tensor] = []
    softmax, multi_head = torch.Tensor.softmax, nn.MultiheadAttention.forward

    def keep(
        scores: Tensor, dim: int = -1, **_: Any
    ) -> Tensor:  # transformers would go down to float32
        found.append(softmax(scores, dim))
        return found[-1]

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "softmax", keep)
        patch.setattr(
            nn.MultiheadAttention,
            "forward",
            lambda self, *args, **kwargs: multi_head(
                self, *args, **{**kwargs, "need_weights": True}
            ),
        )
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
            if hasattr(module, "config"):
                module.config._attn_implementation = "eager"
        yield found


def literal_twin(
    model: Any, images: Tensor, targets: Tensor, monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """GAE as written: full products, one gradient per map, one image at a time.

    The readout is what the class's code says.
    """
    model = copy.deepcopy(model).double().eval()
    out = []
    for image, target in zip(images.double(), targets, strict=True):
        with softmaxes(model, monkeypatch) as maps:
            answer = logits_of(model, image[None])[0, target]
            pairs = [
                (a, torch.autograd.grad(answer, a, retain_graph=True, allow_unused=True)[0])
                for a in maps
            ]
        shares = []
        for attention, gradient in pairs:
            if gradient is not None:
                positive = torch.relu(gradient * attention)
                shares.append(positive.reshape(-1, *positive.shape[-2:]).mean(0).detach())
        pool = shares.pop() if shares[-1].shape[0] == 1 else None
        tokens = shares[0].shape[-1]
        total = torch.eye(tokens, dtype=torch.float64)
        together = 2 if hasattr(model, "blocks") and hasattr(model.blocks[0], "attns") else 1
        for at in range(0, len(shares), together):
            total = total + sum(share @ total for share in shares[at : at + together])
        height, width = (
            side // patch for side, patch in zip(image.shape[1:], patch_size(model), strict=True)
        )
        first = tokens - height * width
        row = (
            rows_read(model, total, first)
            if pool is None
            else (pool @ total[tokens - pool.shape[1] :])[0]
        )
        out.append(row[first:].reshape(height, width))
    return torch.stack(out)


def patch_size(model: Any) -> tuple[int, int]:
    if hasattr(model, "patch_embed"):
        return tuple(model.patch_embed.patch_size)
    config = model.tower.config if hasattr(model, "tower") else getattr(model, "config", model)
    side = getattr(config, "vision_config", config).patch_size
    return side, side


def rows_read(model: Any, total: Tensor, first: int) -> Tensor:
    kind, library = type(model).__name__, type(model).__module__.split(".")[0]
    if kind in ("VisionTransformerDistilled", "DeiTForImageClassificationWithTeacher"):
        return (total[0] + total[1]) / 2
    if kind.startswith("Dinov2"):
        return (total[0] + total[first:].mean(0)) / 2
    if kind in ("CLIPForImageClassification", "SiglipForImageClassification"):
        return total[first:].mean(0)
    if kind == "BeitForImageClassification" and model.config.use_mean_pooling:
        return total[first:].mean(0)
    if library == "timm" and model.global_pool == "avg":
        return total[0 if getattr(model, "pool_include_prefix", False) else first :].mean(0)
    return total[0]


@every
def test_relevance_equals_the_literal_twin(
    name: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(name, variant).double()
    images, targets = images_for(model).double(), torch.tensor([3, 1])
    expected = literal_twin(model, images, targets, monkeypatch)
    found = refocus.explain(model, images, targets).patches
    assert found.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@every
def test_the_readout_is_where_the_answer_reads_the_last_tokens(name: str, variant: str) -> None:
    """By the gradient, whatever the code says.

    Only tokens of the readout move a logit once the last block is done.
    """
    model = build(name, variant)
    images, reader = images_for(model), view(model)
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: Any) -> None:
        kept.append(output if isinstance(output, Tensor) else output[0])

    handle = reader.blocks[-1].register_forward_hook(keep)
    logits = logits_of(model, images)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), kept)
    read = (gradient.abs().sum((0, 2)) > 0).double()
    tokens = kept[0].shape[1]
    height, width = reader.grid(*images.shape[-2:])
    assert tokens == reader.prefix + height * width
    with attention_maps(model) as maps:
        logits_of(model, images)
    if (
        maps[-1].shape[-2] == 1 and "SigLIP (t" not in name
    ):  # a pooling query reads the last tokens it can
        assert torch.equal(
            read,
            torch.cat(
                [torch.zeros(tokens - maps[-1].shape[-1]), torch.ones(maps[-1].shape[-1])]
            ).double(),
        )
    else:
        assert torch.equal((reader.readout(tokens) > 0).double(), read)
        assert reader.readout(tokens).sum().item() == pytest.approx(1)


@every
def test_legrad_works_on_every_family_but_with_maps_side_by_side(name: str, variant: str) -> None:
    model = build(name, variant)
    images, masks = images_for(model), torch.zeros(2, 1, *model.pretrained_cfg["input_size"][1:])
    step = refocus.objective("legrad")
    if view(model).branches > 1:
        with pytest.raises(refocus.InputError, match="LeGrad"):
            step(model, images, masks, torch.tensor([0, 1]))
        return
    before = logits_of(model, images)
    step(model, images, masks, torch.tensor([0, 1]))["background"].backward()
    assert sum(p.grad.abs().sum() for p in model.parameters() if p.grad is not None) > 0
    assert torch.equal(logits_of(model, images), before)  # the blocks compute again


@every
@pytest.mark.parametrize("kind", ["attention", "rollout", "gradcam"])
def test_other_maps_train_every_family(name: str, variant: str, kind: str) -> None:
    model = build(name, variant)
    images = images_for(model)
    masks = torch.zeros(2, 1, *model.pretrained_cfg["input_size"][1:])
    masks[..., : masks.shape[-1] // 2] = 1
    step = refocus.objective("energy", map=kind, classification=0.0)
    energy = step(model, images, masks, torch.tensor([0, 1]))["energy"]
    if kind == "gradcam" and not energy.requires_grad:
        pytest.fail("outside of the graph")
    energy.backward()
    assert sum(p.grad.abs().sum() for p in model.parameters() if p.grad is not None) > 0


@every
def test_recomputed_maps_give_the_same_relevance_and_the_same_gradients(
    name: str, variant: str
) -> None:
    model = build(name, variant).double()
    images = images_for(model).double()
    found = []
    for recompute in (False, True):
        model.zero_grad()
        logits, raw = relevance_patches(
            model, images, torch.tensor([3, 1]), create_graph=True, recompute=recompute
        )
        (raw.square().sum() + logits.square().sum()).backward()
        found.append(
            (raw.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        )
    torch.testing.assert_close(found[0], found[1])


@every
def test_recording_changes_no_logit_and_rows_sum_to_one(name: str, variant: str) -> None:
    model = build(name, variant)
    images = images_for(model)
    with torch.no_grad():
        plain = logits_of(model, images)
        with attention_maps(model) as maps:
            recorded = logits_of(model, images)
            logits_of(model, images)  # the list holds the last pass alone
    torch.testing.assert_close(recorded, plain, rtol=1e-4, atol=1e-4)
    assert len(maps) in (3, 4, 6)
    for attention in maps:
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))


def trace(model: nn.Module) -> Any:
    switches = ("training", "fused_attn", "grad_checkpointing", "gradient_checkpointing")
    configs = [m.config for m in model.modules() if hasattr(m, "config")]
    configs += [c.text_config for c in configs if hasattr(c, "text_config")]
    kinds = [config._attn_implementation for config in configs]
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), [vars(m).get(s) for s in switches])
        for m in model.modules()
    ]
    weights = [
        (n, p.requires_grad, p.grad is None, p.detach().double().sum().item())
        for n, p in model.named_parameters()
    ]
    return kinds, hooks, weights, list(model.state_dict())


@every
@pytest.mark.parametrize("fails", [False, True])
def test_leaves_no_trace(name: str, variant: str, fails: bool) -> None:
    model = build(name, variant).train()
    next(model.parameters()).requires_grad_(False)  # a mixed state must come back as it was
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = "eager"
    if hasattr(
        getattr(model, "config", None), "text_config"
    ):  # nobody's module, and set along with its parent
        model.config.text_config._attn_implementation = "flash_attention_2"
    if hasattr(model, "set_grad_checkpointing"):
        model.set_grad_checkpointing(True)
    images = images_for(model)
    handle = list(model.modules())[-1].register_forward_hook(lambda *_: 1 / 0) if fails else None
    before = trace(model)
    if fails:
        with pytest.raises(ZeroDivisionError):
            refocus.explain(model, images)
    else:
        refocus.explain(model, images)
    assert trace(model) == before
    if handle:
        handle.remove()


@every
def test_one_step_moves_every_block_with_gradient_checkpointing_too(
    name: str, variant: str
) -> None:
    model = build(name, variant).train()
    for enable in ("set_grad_checkpointing", "activation_checkpointing_enable"):
        getattr(model, enable, lambda: None)()
    images, masks = images_for(model), torch.zeros(2, 1, *model.pretrained_cfg["input_size"][1:])
    masks[..., : masks.shape[-1] // 2] = 1
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    refocus.objective("relevance")(model, images, masks, torch.tensor([0, 1]))["loss"].backward()
    optimizer.step()
    names = {id(p): n for n, p in model.named_parameters()}
    for block in view(model).blocks:
        inside = [names[id(p)] for p in block.parameters()]
        assert any(not torch.equal(before[n], model.get_parameter(n)) for n in inside)


@every
def test_save_and_load_in_its_own_library(name: str, variant: str, tmp_path: Path) -> None:
    model = build(name, variant)
    refocus.save(model, tmp_path / "saved")
    images = images_for(model)
    with torch.inference_mode():
        expected = logits_of(model, images)
        again = refocus.load(tmp_path / "saved")
        torch.testing.assert_close(logits_of(again, images), expected)
        torch.testing.assert_close(by_its_own_library(model, tmp_path / "saved", images), expected)
    assert refocus.vit.classes.class_names(again) == NAMES
    assert refocus.vit.loading.preprocessing(again) == refocus.vit.loading.preprocessing(model)
    refocus.save(again, tmp_path / "saved")  # replaces a model


def by_its_own_library(model: Any, folder: Path, images: Tensor) -> Tensor:
    row = family(model)
    assert row is not None
    if row[1].library == "timm":
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(images)
    if row[1].library == "torchvision":
        plain = VisionTransformer(**json.loads((folder / "config.json").read_text())["torchvision"])
        plain.load_state_dict(load_file(folder / "model.safetensors"))
        return plain.eval()(images)
    import transformers

    if row[0].startswith("zero-shot"):
        output = type(model.tower).from_pretrained(folder).eval()(images)
        embedding = getattr(output, "image_embeds", None)
        embedding = F.normalize(output.pooler_output if embedding is None else embedding, dim=-1)
        head = load_file(folder / "zero_shot.safetensors")
        return head["scale"] * embedding @ head["embeddings"].T + head["shift"]
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    assert processor.size["height"] == 32
    return (
        transformers.AutoModelForImageClassification.from_pretrained(folder).eval()(images).logits
    )


@every
def test_the_last_blocks_and_low_rank_additions_free_what_they_should(
    name: str, variant: str
) -> None:
    from refocus.tuning.trainable import restrict

    model = build(name, variant)
    blocks = view(model).blocks
    last, others = (
        {id(p) for p in b.parameters()} for b in (blocks[-1], nn.ModuleList(blocks[:-1]))
    )
    restrict(model, last_blocks=1)
    free = {id(p) for p in model.parameters() if p.requires_grad}
    assert last <= free
    assert not others & free
    assert len(free) > len(last)  # the classifier
    assert not next(
        p for n, p in model.named_parameters() if "patch_embed" in n or "conv_proj" in n
    ).requires_grad
    adapted = build(name, variant)
    restrict(adapted, lora=1)
    moving = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert any("lora_A" in n for n in moving)
    assert not any("patch_embed" in n or "conv_proj" in n or "pos_embed" in n for n in moving)
    assert any("lora_" not in n for n in moving)


@every
def test_merged_low_rank_additions_answer_as_the_adapted_model(name: str, variant: str) -> None:
    from refocus.tuning.trainable import plain_state, restrict

    plain, model = build(name, variant), build(name, variant)
    images = images_for(model)
    restrict(model, lora=2)
    torch.testing.assert_close(logits_of(model, images), logits_of(plain, images))
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            if "lora_B" in weight_name:
                weight.normal_(std=0.3)
    adapted = logits_of(model, images)
    gradients = torch.autograd.grad(
        adapted.square().sum(),
        [weight for n, weight in model.named_parameters() if "lora_A" in n],
    )
    assert all(gradient.abs().max() > 0 for gradient in gradients)  # every addition is read
    plain.load_state_dict(plain_state(model))
    torch.testing.assert_close(logits_of(plain, images), adapted, rtol=1e-3, atol=1e-3)
