"""What `refocus.explain` costs in forward passes of the model, beside its peers, interleaved.

    pip install -r benchmarks/requirements.txt
    python benchmarks/explain.py [--batch 8] [--rounds 9]

ViT-B/16 at 224 with random weights: torchvision's (ours, torch-cam's LeGrad over all blocks,
pytorch-grad-cam, captum's input gradient) and transformers' (ours, attention rollout by
`output_attentions`). The literal GAE is the definition in our own words: a gradient by each map in
turn and products of N x N matrices. Each row: median over rounds of its time / the forward pass's.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import measure
import torch
from torch import Tensor, nn

from refocus import explain
from refocus.relevance.answers import logits_of
from refocus.relevance.attention import attention_maps


def literal_gae(model: nn.Module, images: Tensor) -> Tensor:
    with attention_maps(model) as maps:
        logits = logits_of(model, images)
    score = logits.max(1).values.sum()
    tokens = maps[0].shape[-1]
    rollout = torch.eye(tokens, device=images.device).expand(len(images), tokens, tokens)
    for attention in maps:
        (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
        rollout = rollout + torch.bmm((gradient * attention).clamp(min=0).mean(1), rollout)
    return rollout[:, 0, 1:]


def attention_rollout(model: Any, images: Tensor) -> Tensor:
    """Abnar and Zuidema, ACL 2020, on the maps that transformers returns."""
    with torch.inference_mode():
        maps = model(images, output_attentions=True).attentions
        tokens = maps[0].shape[-1]
        rollout = torch.eye(tokens)
        for attention in maps:
            mixed = attention.mean(1) + torch.eye(tokens)
            rollout = torch.matmul(mixed / mixed.sum(-1, keepdim=True), rollout)
    return rollout[:, 0, 1:]


def on_torchvision(images: Tensor) -> dict[str, Callable[[], Any]]:
    from captum.attr import Saliency
    from pytorch_grad_cam import GradCAM
    from torchcam.methods import LeGrad
    from torchvision.models import vit_b_16

    model = vit_b_16().eval()
    nn.init.normal_(model.heads[-1].weight, std=0.1)  # torchvision starts it at zero

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    def legrad() -> None:
        with LeGrad(model, list(model.encoder.layers)) as extractor:
            scores = model(images)
            extractor(scores.argmax(1).tolist(), scores)

    def grad_cam() -> None:
        def grid(tokens: Tensor) -> Tensor:
            return tokens[:, 1:].reshape(len(tokens), 14, 14, -1).permute(0, 3, 1, 2)

        with GradCAM(
            model=model, target_layers=[model.encoder.layers[-1].ln_1], reshape_transform=grid
        ) as cam:
            cam(input_tensor=images, targets=None)

    def saliency() -> None:
        Saliency(model).attribute(images.clone(), target=[0] * len(images))

    return {
        "forward": forward,
        "refocus.explain": lambda: explain(model, images),
        "literal GAE": lambda: literal_gae(model, images),
        "torch-cam LeGrad, 12 blocks": legrad,
        "pytorch-grad-cam GradCAM, last block": grad_cam,
        "captum Saliency (input gradient)": saliency,
    }


def on_transformers(images: Tensor) -> dict[str, Callable[[], Any]]:
    from transformers import ViTConfig, ViTForImageClassification

    fused = ViTForImageClassification(ViTConfig(num_labels=1000)).eval()
    eager = ViTForImageClassification(
        ViTConfig(num_labels=1000, attn_implementation="eager")
    ).eval()

    def forward() -> None:
        with torch.inference_mode():
            fused(images)

    return {
        "forward": forward,
        "refocus.explain": lambda: explain(fused, images),
        "output_attentions rollout": lambda: attention_rollout(eager, images),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers' own
    torch.manual_seed(0)
    images = torch.randn(args.batch, 3, 224, 224)
    print(
        f"{measure.machine()}\nbatch {args.batch}, {args.rounds} rounds; median of ratios "
        "(quartiles)\n"
    )
    print("| library | method | images/s | forward passes |\n|---|---|---|---|")
    for library, variants in (
        ("torchvision", on_torchvision(images)),
        ("transformers", on_transformers(images)),
    ):
        spent = measure.interleaved(variants, args.rounds)
        for name in variants:
            middle, low, high = measure.ratio(spent, name, "forward")
            rate = args.batch / sorted(spent[name])[len(spent[name]) // 2]
            print(
                f"| {library} | {name} | {rate:.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) |",
                flush=True,
            )
        if "literal GAE" in variants:
            gain = "literal GAE / refocus.explain: {:.2f} ({:.2f} to {:.2f})".format(
                *measure.ratio(spent, "literal GAE", "refocus.explain")
            )
    print(
        f"\n{gain}; goals: refocus.explain at most 2.4 forward passes, at least 3 times as fast as "
        "the literal GAE"
    )


if __name__ == "__main__":
    main()
