"""Segmenters of transformers: read from the hub or a folder, without any code that they bring."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from refocus import fingerprints
from refocus.errors import InputError
from refocus.vit import transformers_models
from refocus.vit.hub import asked_once
from refocus.vit.loading import pick_device, weights_digest


class Checkpoint:
    """A checkpoint of transformers by its ID or folder; what is asked for is read then.

    kind: "hf" or "text", as the user names it.
    known: what it is, by the content of its folder; of a hub's also by the weights, once read.

    Raises:
        InputError: transformers is missing, there is no such checkpoint, or it needs code of its
            own.
    """

    def __init__(self, place: str, device: str, kind: str) -> None:
        self.place, self.device = place, device
        self.known = fingerprints.of_model(place)
        self.shown = f"{kind}:{place}"
        transformers = _of_backend(transformers_models.library)
        with asked_once():
            raw, _ = self._read(lambda: transformers.PretrainedConfig.get_config_dict(place))
            self.kind: str = str(raw.get("model_type", ""))
            if "auto_map" in raw and self.kind not in transformers.CONFIG_MAPPING:
                raise InputError(
                    f"‹backend› {self.shown}: needs code that comes with it (trust_remote_code), "
                    "which is never run; models for background removal are in ‹backend=rembg›"
                )
            self.config = self._read(
                lambda: transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
            )

    def model(self, made_by: Any) -> Any:
        """Its weights in an auto class of transformers, every one of them, in eval mode."""
        with asked_once():
            model = _of_backend(
                lambda: transformers_models.weights(self.shown, made_by, self.place, attention=None)
            )
        if not fingerprints.is_known(self.place):
            self.known.append(weights_digest(model))
        return model.eval().to(pick_device(self.device))

    def processor(self, made_by: Any) -> Any:
        """What an auto class of transformers reads of its preprocessing."""
        with asked_once():
            return self._read(lambda: made_by.from_pretrained(self.place, trust_remote_code=False))

    def _read(self, get: Any) -> Any:
        return _of_backend(lambda: transformers_models.fetch(self.shown, get))


def _of_backend(get: Any) -> Any:
    """What `get` gives, with errors about the backend."""
    try:
        return get()
    except InputError as error:
        raise error.renamed("model", "backend") from error


def squashed(image: Image.Image, processor: Any, model: nn.Module) -> Tensor:
    """The whole image `[1, 3, h, w]` as a processor sizes and normalizes it, on the model's device.

    Processors crop or pad, and a map of their output would not cover the image; so only the size
    that they make is taken from them.
    """
    made: Tensor = processor(images=image, return_tensors="pt")["pixel_values"]
    height, width = made.shape[-2:]
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    values: Tensor = v2.functional.to_image(resized)
    if getattr(processor, "do_rescale", True):
        values = values.float() * getattr(processor, "rescale_factor", 1 / 255)
    if getattr(processor, "do_normalize", True):
        mean, std = (
            torch.tensor(v)[:, None, None] for v in (processor.image_mean, processor.image_std)
        )
        values = (values - mean) / std
    parameter = next(model.parameters())
    return values[None].to(parameter.device, parameter.dtype)
