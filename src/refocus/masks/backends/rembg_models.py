"""rembg's models for background removal (U2-Net, IS-Net, BiRefNet and others), by its sessions."""

from __future__ import annotations

import numpy as np
from PIL import Image

from refocus.errors import InputError, first_line
from refocus.masks.backends.protocol import Backend, Found


def removal(model: str = "u2net") -> Backend:
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
        session = rembg.new_session(model)
    except Exception as error:  # of its own, of pooch and of onnxruntime, which differ by version
        raise InputError(
            f"‹backend› rembg:{model}: cannot be loaded ({first_line(error)}); without network put "
            f"{model}.onnx into ~/.u2net, or name its folder in U2NET_HOME"
        ) from error

    def find(image: Image.Image, _name: str) -> Found:
        mask = rembg.remove(image, session=session, only_mask=True)
        return Found(np.asarray(mask.convert("L"), np.float32) / 255)

    return find
