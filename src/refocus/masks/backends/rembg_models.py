"""rembg's models for background removal (U2-Net, IS-Net, BiRefNet and others), by its sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from refocus import fingerprints
from refocus.errors import InputError, first_line
from refocus.masks.backends.protocol import Found


@dataclass(frozen=True)
class Removal:
    """What a session of rembg leaves when it removes the background.

    known: the fingerprint of its weights, where rembg says which file they are.
    """

    session: Any
    known: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Its file is there already, so rembg downloads nothing when it is asked for it."""
        where = getattr(type(self.session), "download_models", None)
        file = Path(str(where())) if where else None
        known = [fingerprints.of_file(file)] if file and file.is_file() else []
        object.__setattr__(self, "known", known)

    def __call__(self, image: Image.Image, _name: str, /) -> Found:
        """The mask of an image."""
        import rembg

        mask = rembg.remove(image, session=self.session, only_mask=True)
        return Found(np.asarray(mask.convert("L"), np.float32) / 255)


def removal(model: str = "u2net") -> Removal:
    """Find what a model of rembg leaves when it removes the background.

    model: the name of a session. rembg keeps model files in `U2NET_HOME` (`~/.u2net`), and asks no
    network for one that is there.

    Raises:
        InputError: rembg is not installed, there is no such session, or its file cannot be had.
    """
    try:
        import rembg
    except ImportError as error:
        raise InputError(
            "‹backend› rembg: not installed; run `pip install 'refocus-vit[rembg]'`"
        ) from error
    try:
        return Removal(rembg.new_session(model))
    except Exception as error:  # of its own, of pooch and of onnxruntime, which differ by version
        raise InputError(
            f"‹backend› rembg:{model}: cannot be loaded ({first_line(error)}); without network put "
            f"{model}.onnx into ~/.u2net, or name its folder in U2NET_HOME"
        ) from error
