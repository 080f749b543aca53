"""Arguments of the wrong kind are refused in one line that names them; wrapped models are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import refocus
from refocus.objectives.by_name import step_of
from refocus.objectives.steps import StepSettings
from refocus.vit.classes import class_count, class_names, label_names
from tests.makers import NAMES
from tests.own_vit import OwnViT
from tests.zoo import CASES, build, images_for

Build = Callable[..., nn.Module]
IMAGES = torch.linspace(-2, 2, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
MASKS = torch.zeros(2, 1, 32, 32)
MASKS[:, :, 8:24, 8:24] = 1
LABELS = torch.tensor([0, 3])


@pytest.fixture(scope="module")
def model() -> nn.Module:
    from tests.zoo import from_timm

    torch.manual_seed(0)
    return from_timm("vit_tiny_patch16_224")()


def refusal(call: Callable[..., object], *given: object, **named: object) -> str:
    with pytest.raises(refocus.InputError) as refused:
        call(*given, **named)
    text = str(refused.value)
    assert "\n" not in text
    return text


# --- images -------------------------------------------------------------------------------------

WRONG_IMAGES: dict[str, tuple[Any, str]] = {
    "a picture": (Image.new("RGB", (40, 30)), "PIL.Image.Image [40, 30]; must be normalized"),
    "an array": (np.zeros((2, 3, 32, 32), np.float32), "numpy.ndarray [2, 3, 32, 32]"),
    "a path": ("dog.png", "str 'dog.png'"),
    "a list": ([IMAGES[0]], "images: list; must be"),
    "one image": (IMAGES[0], "[3, 32, 32] float32; must be normalized floats [B, 3, height"),
    "grey": (IMAGES[:, :1], "[2, 1, 32, 32]"),
    "channels last": (IMAGES.permute(0, 2, 3, 1), "[2, 32, 32, 3]"),
    "bytes": ((IMAGES * 50 + 100).byte(), "uint8"),
    "0..255": (IMAGES * 50 + 120, "values as far as 220 from 0"),
    "NaN": (IMAGES.masked_fill(IMAGES > 1.9, torch.nan), "NaN or infinite"),
    "infinite": (IMAGES.masked_fill(IMAGES > 1.9, torch.inf), "NaN or infinite"),
    "float64": (IMAGES.double(), "float64, the model's weights float32; must be of one type"),
    "half": (IMAGES.half(), "float16, the model's weights float32"),
    "elsewhere": (IMAGES.to("meta"), "on meta, the model on cpu"),
    "another size": (torch.zeros(2, 3, 40, 32), "[2, 3, 40, 32]: the model does not take them"),
}


@pytest.mark.parametrize("name", WRONG_IMAGES)
def test_images_are_checked_wherever_they_are_given(model: nn.Module, name: str) -> None:
    images, message = WRONG_IMAGES[name]
    said = refusal(refocus.explain, model, images)
    assert said.startswith("images: ")
    assert message in said
    masks = torch.zeros(2, 1, 40, 32) if name == "another size" else MASKS
    assert message in refusal(refocus.objective("energy"), model, images, masks, LABELS)


def test_how_far_pixels_may_lie_follows_from_the_models_normalization(tiny: Build) -> None:
    far = IMAGES * 60
    assert "values as far as 120" in refusal(refocus.explain, tiny(), far)
    model = tiny()
    model.pretrained_cfg |= {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}
    assert refocus.explain(model, far).logits.isfinite().all()


def test_an_empty_batch_has_nothing_to_explain_and_nothing_to_train_on(model: nn.Module) -> None:
    assert refocus.explain(model, IMAGES[:0]).relevance.shape == (0, 32, 32)
    said = refusal(refocus.objective("energy"), model, IMAGES[:0], MASKS[:0], LABELS[:0])
    assert said == "images: an empty batch; must hold at least one image"


def test_under_autocast_the_types_may_differ(model: nn.Module) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert refocus.explain(model, IMAGES.bfloat16()).relevance.isfinite().all()


# --- masks and labels ---------------------------------------------------------------------------

_LEGAL = "[2, 1, 32, 32] or [2, 32, 32]"
WRONG_MASKS: dict[str, tuple[Any, str]] = {
    "bytes 0..255": ((MASKS * 255).byte(), "values from 0 to 255; must be 0 (background) to 1"),
    "floats 0..255": (MASKS * 255, "divide 0/255 masks by 255"),
    "percent": (MASKS * 100, "values from 0 to 100"),
    "object ids": (MASKS.long() * 3, "values from 0 to 3"),
    "-1..1": (MASKS * 2 - 1, "values from -1 to 1; must be"),
    "NaN": (MASKS * torch.nan, "values from nan to nan"),
    "one for all": (MASKS[0, 0], f"[32, 32] float32; must be {_LEGAL}"),
    "one of two": (MASKS[:1], f"[1, 1, 32, 32] float32; must be {_LEGAL}"),
    "three channels": (MASKS.repeat(1, 3, 1, 1), f"[2, 3, 32, 32] float32; must be {_LEGAL}"),
    "another size": (MASKS[..., ::2, ::2], f"[2, 1, 16, 16] float32; must be {_LEGAL}"),
    "turned": (torch.zeros(2, 32, 31), "[2, 32, 31]"),
    "complex": (MASKS * 1j, "complex64"),
    "an array": (MASKS.numpy(), "numpy.ndarray [2, 1, 32, 32]"),
    "pictures": ([Image.new("L", (32, 32))] * 2, "masks: list"),
    "elsewhere": (MASKS.to("meta"), "on meta, images on cpu"),
}
WRONG_LABELS: dict[str, tuple[Any, str]] = {
    "too large": (torch.tensor([0, 4]), "0 to 4; must be 0 to 3, the model's classes"),
    "ignored": (torch.tensor([-100, 1]), "-100 to 1; must be"),
    "floats": (LABELS.float(), "[2] float32; must be class indices [2] of type int64"),
    "boolean": (LABELS > 0, "[2] bool"),
    "one-hot": (torch.eye(4)[LABELS], "[2, 4] float32"),
    "a column": (LABELS[:, None], "[2, 1] int64"),
    "too few": (LABELS[:1], "[1] int64; must be class indices [2]"),
    "a list": ([0, 3], "labels: list"),
    "names": (["ant", "dog"], "labels: list"),
    "nothing": (None, "labels: NoneType; must be class indices [2]"),
    "elsewhere": (LABELS.to("meta"), "on meta, images on cpu"),
}


@pytest.mark.parametrize("objective", ["relevance", "swap", "finetune"])
@pytest.mark.parametrize("name", WRONG_MASKS)
def test_masks_are_checked(model: nn.Module, objective: str, name: str) -> None:
    masks, message = WRONG_MASKS[name]
    said = refusal(refocus.objective(objective), model, IMAGES, masks, LABELS)
    assert said.startswith("masks: ")
    assert message in said


@pytest.mark.parametrize("name", WRONG_LABELS)
def test_labels_are_checked(model: nn.Module, name: str) -> None:
    labels, message = WRONG_LABELS[name]
    said = refusal(refocus.objective("refocus"), model, IMAGES, MASKS, labels)
    assert said.startswith("labels: ")
    assert message in said


RIGHT: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "boolean": lambda: (MASKS > 0, LABELS),
    "bytes of 0 and 1": lambda: (MASKS.byte(), LABELS),
    "int64": lambda: (MASKS.long(), LABELS),
    "without a channel": lambda: (MASKS[:, 0], LABELS),
    "float64": lambda: (MASKS.double(), LABELS),
    "a rounding error beyond 1": lambda: (MASKS * (1 + 1e-6), LABELS),
    "labels of int32": lambda: (MASKS, LABELS.int()),
    "labels of uint8": lambda: (MASKS, LABELS.byte()),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_means_the_same_gives_the_same_loss(model: nn.Module, name: str) -> None:
    step = refocus.objective("refocus")
    expected = step(model, IMAGES, MASKS, LABELS)["loss"]
    torch.testing.assert_close(step(model, IMAGES, *RIGHT[name]())["loss"], expected)


def test_the_step_that_trusts_its_batch_computes_the_same(model: nn.Module) -> None:
    trusted = step_of("energy", StepSettings(), {})(model, IMAGES, MASKS, LABELS)
    checked = refocus.objective("energy")(model, IMAGES, MASKS, LABELS)
    assert all(torch.equal(trusted[term], checked[term]) for term in checked)


def test_a_target_of_ones_own_reads_whatever_labels_it_likes(model: nn.Module) -> None:
    step = refocus.objective("relevance", target=lambda z: z[:, 0], classification=0.0)
    assert step(model, IMAGES, MASKS, torch.tensor([0.5, 1.5]))["loss"].isfinite()
    assert "masks" in refusal(step, model, IMAGES, MASKS * 255, LABELS)


# --- models, and arguments that are no tensors --------------------------------------------------

CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "explain: a name": (lambda: refocus.explain("vit", IMAGES), "model: str 'vit'; must be a"),
    "step: a name": (
        lambda: refocus.objective("energy")("vit", IMAGES, MASKS, LABELS),
        "model: str 'vit'; must be a torch.nn.Module, such as refocus.load returns",
    ),
    "attention_maps: a name": (lambda: refocus.attention_maps("vit"), "model: str 'vit'"),
    "recorded: a name": (lambda: refocus.recorded("vit").__enter__(), "model: str 'vit'"),
    "recorded: a layer's name": (
        lambda: refocus.recorded(nn.Identity(), ["attn"]).__enter__(),
        "layers[0]: str 'attn'",
    ),
    "objective: temperature 0": (
        lambda: refocus.objective("relevance", temperature=0),
        "temperature: int 0; must be a positive number",
    ),
    "objective: temperature as text": (
        lambda: refocus.objective("relevance", temperature="0.5"),
        "temperature: str '0.5'",
    ),
    "objective: a weight that is no number": (
        lambda: refocus.objective("energy", energy="much"),
        "weights energy: str 'much'; must be a number",
    ),
    "objective: a weight that is not finite": (
        lambda: refocus.objective("energy", energy=float("nan")),
        "weights energy=nan: must be a finite number",
    ),
    "objective: seen as names": (
        lambda: refocus.objective("refocus", seen=["ant"]),
        "seen: list; must be class indices",
    ),
    "objective: nothing seen": (
        lambda: refocus.objective("refocus", seen=[]),
        "seen: list; must be class indices, at least one",
    ),
    "objective: a list of names": (
        lambda: refocus.objective(["refocus"]),
        "objective ['refocus']: unknown; choose one of relevance",
    ),
    "objective: original as a name": (
        lambda: refocus.objective("energy", original="vit", kl=1.0),
        "original: str 'vit'",
    ),
    "objective: target as an index": (
        lambda: refocus.objective("energy", target=3),
        "target: int 3; must be a function of the logits",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_other_arguments_are_checked(name: str) -> None:
    call, message = CALLS[name]
    assert message in refusal(call)


def test_a_model_made_in_inference_mode_has_no_gradients(tiny: Build) -> None:
    with torch.inference_mode():
        model = tiny()
        assert "made or loaded inside torch.inf" in refusal(refocus.explain, model, IMAGES)
    assert "made or loaded inside torch.inference" in refusal(refocus.explain, model, IMAGES)
    step = refocus.objective("finetune")
    assert "made or loaded inside torch" in refusal(step, model, IMAGES, MASKS, LABELS)
    assert model.head.weight.requires_grad


WRONG_TARGETS: dict[str, tuple[Any, str]] = {
    "names": (["ant", "bee"], "targets: list; must be 2 class indices"),
    "floats": ([0.0, 1.0], "targets: [2] torch.float32"),
    "boolean": ([True, False], "targets: [2] torch.bool"),
    "too many": ([0, 1, 2], "targets: [3] torch.int64; must be 2"),
    "ragged": ([[0], [1, 2]], "targets: list; must be 2"),
    "outside": ([0, 4], "targets: [0, 4]; the model's classes are 0 to 3"),
    "detached": (lambda z: z.detach()[:, 0], "targets: the score is detached from the logits"),
}


@pytest.mark.parametrize("name", WRONG_TARGETS)
def test_targets_are_checked(model: nn.Module, name: str) -> None:
    targets, message = WRONG_TARGETS[name]
    assert message in refusal(refocus.explain, model, IMAGES, targets)


@pytest.mark.parametrize("outputs", [2, 7])
def test_classes_are_those_of_the_head_that_a_model_has(tiny: Build, outputs: int) -> None:
    model = tiny()
    model.head = nn.Linear(24, outputs)  # it still says that it has 4
    last = outputs - 1
    assert refocus.explain(model, IMAGES, last).targets.tolist() == [last, last]
    assert f"classes are 0 to {last}" in refusal(refocus.explain, model, IMAGES, outputs)
    assert class_count(model) == outputs
    assert label_names(model) is None
    step = refocus.objective("refocus")
    assert step(model, IMAGES, MASKS, torch.tensor([0, last]))["loss"].isfinite()
    said = refusal(step, model, IMAGES, MASKS, torch.tensor([0, outputs]))
    assert said == f"labels: 0 to {outputs}; must be 0 to {last}, the model's classes"


class Own(OwnViT):
    """A model of the user's own that does not say how many classes it has."""

    def __init__(self, returned: Callable[[Tensor], object] = lambda logits: logits) -> None:
        super().__init__()
        self.returned = returned
        del self.num_classes

    def forward(self, images: Tensor) -> Any:
        return self.returned(super().forward(images))


@pytest.mark.parametrize(
    ("objective", "weights"),
    [
        ("refocus", {}),
        ("refocus", {"energy": 0.0}),
        ("relevance", {}),
        ("finetune", {}),
        ("gradmask", {}),
        ("rrr", {}),
    ],
)
def test_classes_that_no_output_has_are_found_by_the_pass(objective: str, weights: Any) -> None:
    step = refocus.objective(objective, **weights)
    said = refusal(step, Own(), IMAGES, MASKS, torch.tensor([0, 99]))
    assert said.endswith(": 0 to 99; must be 0 to 3, the model's classes")
    assert "99; must be 0 to 3" in refusal(refocus.explain, Own(), IMAGES, 99)
    seen = refocus.objective("refocus", seen=[99])
    assert "seen: 0 to 99; must be 0 to 3" in refusal(seen, Own(), IMAGES, MASKS, LABELS)


RETURNED: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "a dictionary": (lambda z: {"logits": z}, "Own: a pass returns dict; must be logits [B, K]"),
    "a tuple": (lambda z: (z,), "Own: a pass returns tuple; must be"),
    "nothing": (lambda z: None, "Own: a pass returns NoneType; must be"),
    "one number an image": (lambda z: z[:, 0], "Own: a pass returns [2] float32; must be"),
}


@pytest.mark.parametrize("name", RETURNED)
def test_a_model_returns_logits(name: str) -> None:
    returned, message = RETURNED[name]
    assert message in refusal(refocus.explain, Own(returned), IMAGES)
    step = refocus.objective("finetune")
    assert message in refusal(step, Own(returned), IMAGES, MASKS, LABELS)


@pytest.mark.parametrize("side", [4, 36])
def test_a_model_of_ones_own_may_not_take_a_size(side: int) -> None:
    model = Own()
    model.blocks.insert(0, nn.LayerNorm([16, 16]))  # of 4 x 4 patches
    said = refusal(refocus.explain, model, torch.zeros(1, 3, side, side + 8))
    assert said.startswith(f"images: [1, 3, {side}, {side + 8}]: the model does not take them")


def test_an_error_in_a_target_of_ones_own_stays_what_it_is(model: nn.Module) -> None:
    for error in (ValueError, RuntimeError, ZeroDivisionError):

        def target(_logits: Tensor, error: Any = error) -> Tensor:
            raise error("of another size")

        for call in (
            lambda target=target: refocus.explain(model, IMAGES, target),
            lambda target=target: refocus.objective("energy", target=target, classification=0.0)(
                model, IMAGES, MASKS, LABELS
            ),
        ):
            with pytest.raises(error, match="of another size"):
                call()


def test_an_error_in_a_model_that_is_not_about_sizes_stays_what_it_is() -> None:
    def broken(_logits: Tensor) -> Tensor:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        refocus.explain(Own(broken), IMAGES)


# --- wrapped models -----------------------------------------------------------------------------


def _peft(model: nn.Module) -> nn.Module:
    peft = pytest.importorskip("peft")
    wrapped: nn.Module = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["qkv"]))
    return wrapped


def _compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def _compiled_blocks(model: nn.Module) -> nn.Module:
    for block in model.blocks:
        block.compile(backend="eager")
    return model


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled in place": _compiled_in_place,
    "compiled block by block": _compiled_blocks,
    "compiled in DataParallel": lambda m: nn.DataParallel(torch.compile(m, backend="eager")),
    "PEFT": _peft,
    "compiled PEFT": lambda model: torch.compile(_peft(model), backend="eager"),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_models_are_explained_and_trained_as_what_is_inside(tiny: Build, name: str) -> None:
    plain = tiny()
    expected = refocus.explain(plain, IMAGES)
    loss = refocus.objective("refocus")(plain, IMAGES, MASKS, LABELS)["loss"].detach()
    wrapped = WRAPPED[name](plain)
    torch.testing.assert_close(refocus.explain(wrapped, IMAGES).patches, expected.patches)
    step = refocus.objective("refocus", recompute=True)
    terms = step(wrapped, IMAGES, MASKS, LABELS)
    torch.testing.assert_close(terms["loss"].detach(), loss)
    terms["loss"].backward()
    assert any(weight.grad is not None for weight in wrapped.parameters())
    with refocus.attention_maps(wrapped) as maps:
        wrapped(IMAGES)
    assert len(maps) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_models_keep_names_and_preprocessing_and_are_saved_as_what_is_inside(
    tiny: Build, tmp_path: Path, name: str
) -> None:
    plain = tiny()
    wrapped = WRAPPED[name](plain)
    assert class_names(wrapped) == class_names(plain) == NAMES
    picture = Image.new("RGB", (40, 30), "red")
    pixels = refocus.eval_image(wrapped)(picture)
    assert pixels.shape == (3, 32, 32)
    refocus.save(wrapped, tmp_path / "model")
    again = refocus.load(tmp_path / "model")
    assert class_names(again) == NAMES
    with torch.no_grad():
        torch.testing.assert_close(again(pixels[None]), wrapped(pixels[None]))


def test_adapters_that_have_learned_are_saved_with_the_model(tiny: Build, tmp_path: Path) -> None:
    wrapped = _peft(tiny())
    with torch.no_grad():
        for weight_name, weight in wrapped.named_parameters():
            if "lora_B" in weight_name:
                weight.normal_()
    expected = wrapped(IMAGES).detach()
    refocus.save(wrapped, tmp_path / "model")
    torch.testing.assert_close(refocus.load(tmp_path / "model")(IMAGES).detach(), expected)
    torch.testing.assert_close(wrapped(IMAGES).detach(), expected)  # it was not merged itself


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel])
def test_a_model_that_says_nothing_of_its_preprocessing_is_not_guessed_about(wrap: Any) -> None:
    """transformers normalizes by 0.5, timm by ImageNet's mean: either guess is wrong for some."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3}
    config = transformers.ViTConfig(**sizes, intermediate_size=24, image_size=32, patch_size=8)
    model = wrap(transformers.ViTForImageClassification(config))
    said = refusal(refocus.eval_image, model)
    assert "ViTForImageClassification says nothing of its preprocessing; load it with" in said


def test_compiled_code_is_on_again_after_a_recording(tiny: Build) -> None:
    ran = []

    def backend(graph: Any, _inputs: object) -> Any:
        ran.append(graph)
        return graph.forward

    model = torch.compile(tiny(), backend=backend)
    refocus.explain(model, IMAGES)
    assert not ran
    model(IMAGES)
    assert ran


@pytest.mark.parametrize(
    ("family", "variant"), [case for case in CASES if case[0] != "ViT"], ids=lambda part: part
)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_in_another_number_format_takes_float32_images_or_says_that_it_does_not(
    family: str, variant: str, kind: torch.dtype
) -> None:
    other = build(family, variant).to(kind)
    images = images_for(other)
    try:
        assert refocus.explain(other, images, 1).logits.dtype == kind
    except refocus.InputError as error:
        assert "must be of one type" in str(error)  # noqa: PT017 - either is right
        refocus.explain(other, images.to(kind), 1)
